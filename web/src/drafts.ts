// Unsent text, one draft per conversation, stored across reloads.
import { signal } from "@preact/signals";
import { save, load, namesOf } from "./store";

interface Draft {
  text: string;
  at_ms: number;
}

const kept_max = 50;
const keep_after_ms = 300;

/** The text in the message field. */
export const draft = signal("");

let place: string | null = null;
let timer = 0;

/** Shows the draft of a conversation, after saving the one that was shown. */
export function openDraft(conversationId: string | null): void {
  saveDraft();
  place = conversationId ?? "new";
  draft.value = load<Draft>(`draft:${place}`)?.text ?? "";
}

export function write(text: string): void {
  draft.value = text;
  clearTimeout(timer);
  timer = window.setTimeout(saveDraft, keep_after_ms);
}

export function saveDraft(): void {
  clearTimeout(timer);
  if (place === null) return;
  const known = load<Draft>(`draft:${place}`)?.text ?? "";
  if (draft.value === known) return;
  save(`draft:${place}`, draft.value ? { text: draft.value, at_ms: Date.now() } : null);
  const all = namesOf("draft:").map(
    (name) => [name, load<Draft>(`draft:${name}`)?.at_ms ?? 0] as const,
  );
  for (const [name] of all.sort((a, b) => b[1] - a[1]).slice(kept_max)) save(`draft:${name}`, null);
}
