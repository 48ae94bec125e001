// The small buttons under a message: actions, and navigation between siblings.
import { useRef } from "preact/hooks";
import { showBranch } from "../conversation";
import { copy } from "../clipboard";
import type { Message } from "../state/shapes";
import { Icon, type IconName } from "./icon";

interface ActionButtonProps {
  icon: IconName;
  label: string;
  onClick?: () => void;
  /** Returns the text that the button copies. */
  copies?: () => string;
}

export function ActionButton({ icon, label, onClick, copies }: ActionButtonProps) {
  const button = useRef<HTMLButtonElement>(null);
  const act = () => (copies ? void copy(copies(), button.current!) : onClick?.());
  return (
    <button
      ref={button}
      type="button"
      class="icon-button small"
      aria-label={label}
      title={label}
      onClick={act}
    >
      <Icon name={icon} />
      {copies && <Icon name="check" />}
    </button>
  );
}

/** ‹ 2/3 › */
export function Siblings({ message, what }: { message: Message; what: string }) {
  const { id, siblings, position = 0, sibling_count = 0 } = message;
  const place = siblings.indexOf(id);
  // Of many siblings, a message lists only those around it.
  const [number, total] = sibling_count > siblings.length ? [position, sibling_count] : [place, siblings.length];
  if (siblings.length < 2 || place < 0) return null;
  const step = (to: number, label: string, icon: IconName) => (
    <button
      type="button"
      class="icon-button small"
      aria-label={`${label} ${what}`}
      disabled={!siblings[to]}
      onClick={() => siblings[to] && void showBranch(siblings[to])}
    >
      <Icon name={icon} />
    </button>
  );
  return (
    <span class="siblings">
      {step(place - 1, "Previous", "left")}
      <span>
        {number + 1}/{total}
      </span>
      {step(place + 1, "Next", "right")}
    </span>
  );
}
