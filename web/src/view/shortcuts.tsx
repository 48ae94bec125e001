// The dialog with the keyboard shortcuts.
import { Dialog } from "./dialog";

interface Shortcut {
  keys: string[];
  does: string;
}

/** Single letters work outside text fields. */
const shortcuts: Shortcut[] = [
  { keys: ["n"], does: "New chat" },
  { keys: ["Ctrl", "K"], does: "Search" },
  { keys: ["Alt", "↑"], does: "Previous conversation" },
  { keys: ["Alt", "↓"], does: "Next conversation" },
  { keys: ["Esc"], does: "Stop the answer" },
  { keys: ["/"], does: "Write a message" },
  { keys: ["Enter"], does: "Send" },
  { keys: ["Shift", "Enter"], does: "New line" },
  { keys: ["?"], does: "Keyboard shortcuts" },
];

export const ShortcutsDialog = () => (
  <Dialog title="Keyboard shortcuts">
    <dl class="shortcuts">
      {shortcuts.map(({ keys, does }) => (
        <div key={does}>
          <dt>{does}</dt>
          <dd>
            {keys.map((key) => (
              <kbd key={key} translate={false}>{key}</kbd>
            ))}
          </dd>
        </div>
      ))}
    </dl>
  </Dialog>
);
