// What is loaded when the first of it is shown: settings, the system prompt, keyboard shortcuts,
// search results, signing in.
import { useRef } from "preact/hooks";
import { chooseSystemPrompt, systemPromptHere } from "../models";
import { dialog } from "../overlays";
import { Dialog } from "./dialog";
import { SettingsDialog } from "./settings_dialog";
import { ShortcutsDialog } from "./shortcuts";

export { Results } from "./results";
export { SignIn } from "./sign_in";

export function Dialogs() {
  switch (dialog.value) {
    case "settings":
      return <SettingsDialog />;
    case "shortcuts":
      return <ShortcutsDialog />;
    case "conversation":
      return <ConversationDialog />;
    default:
      return null;
  }
}

function ConversationDialog() {
  const field = useRef<HTMLTextAreaElement>(null);
  const save = () => {
    chooseSystemPrompt(field.current!.value);
    dialog.value = null;
  };
  return (
    <Dialog title="System prompt">
      <form onSubmit={(event) => (event.preventDefault(), save())}>
        <label class="field">
          <span>Instructions for the model, sent before the messages of this conversation.</span>
          <textarea
            dir="auto"
            ref={field}
            rows={8}
            maxLength={100_000}
            defaultValue={systemPromptHere.value}
          />
        </label>
        <div class="buttons">
          <button type="submit" class="button primary">
            Save
          </button>
        </div>
      </form>
    </Dialog>
  );
}
