// Keyboard shortcuts of the whole page.
import { isComposing } from "./composing";
import { go, openId, stop, writing } from "./conversation";
import { list, showsArchived } from "./conversations";
import { dialog, listOpen } from "./overlays";
import { neighbour } from "./state/list";

export const listen = (): void => addEventListener("keydown", onKeyDown);

function onKeyDown(event: KeyboardEvent): void {
  if (
    event.defaultPrevented ||
    isComposing(event) ||
    document.querySelector("dialog[open], [popover]:popover-open")
  )
    return;
  const act = actOf(event);
  if (!act) return;
  event.preventDefault();
  act();
}

function actOf(event: KeyboardEvent): (() => void) | null {
  const { key, altKey, ctrlKey, metaKey, shiftKey } = event;
  const into = event.target as HTMLElement;
  const writes = into.matches("input, textarea, select, [contenteditable]");
  if (key.toLowerCase() === "k" && (ctrlKey || metaKey))
    return () => ((listOpen.value = true), focus("search"));
  if (altKey && (key === "ArrowUp" || key === "ArrowDown"))
    return () => move(key === "ArrowDown" ? 1 : -1);
  if (key === "Escape") {
    if (listOpen.value) return () => (listOpen.value = false);
    if (writing.value) return () => void stop();
    return null;
  }
  if (writes || altKey || ctrlKey || metaKey) return null;
  if (key === "?") return () => (dialog.value = "shortcuts");
  if (shiftKey) return null;
  if (key === "n") return () => go(null);
  if (key === "/") return () => focus("message");
  if (key === "j") return () => move(1);
  if (key === "k") return () => move(-1);
  return null;
}

function move(step: 1 | -1): void {
  showsArchived.value = false;
  const id = neighbour(list.value, openId.value, step, new Date());
  if (id) go(id);
}

const focus = (id: string) => setTimeout(() => document.getElementById(id)?.focus());
