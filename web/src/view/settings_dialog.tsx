// The settings dialog: appearance, API keys, account.
import { useSignal } from "@preact/signals";
import { signOut, currentSession } from "../session";
import { change, settings } from "../settings";
import { ApiKeys } from "./api_keys";
import { Dialog } from "./dialog";

export function SettingsDialog() {
  const { theme, size, enterSends } = settings.value;
  return (
    <Dialog title="Settings">
      <Choice
        legend="Theme"
        value={theme}
        among={["system", "light", "dark"]}
        onChoice={(theme) => change({ theme })}
      />
      <Choice
        legend="Text size"
        value={size}
        among={["small", "medium", "large"]}
        onChoice={(size) => change({ size })}
      />
      <label class="switch">
        <input
          type="checkbox"
          checked={enterSends}
          onChange={(event) => change({ enterSends: event.currentTarget.checked })}
        />
        <span>
          Enter sends{" "}
          <small>
            When this is off, Ctrl+Enter or ⌘+Enter sends. Shift+Enter always starts a new line.
          </small>
        </span>
      </label>
      <ApiKeys />
      <section class="account">
        <h3>Account</h3>
        {currentSession.value?.user ? (
          <p>Signed in as {currentSession.value.user.email}.</p>
        ) : (
          <p>
            You are a guest: your conversations can only be opened in this browser. To keep them,
            open a sign-in link here and bring them along.
          </p>
        )}
        <SignOut guest={currentSession.value?.guest ?? false} />
      </section>
    </Dialog>
  );
}

/** A guest cannot open its conversations again after signing out, so this takes a second click. */
function SignOut({ guest }: { guest: boolean }) {
  const sure = useSignal(!guest);
  return (
    <button
      type="button"
      class="button"
      onClick={() => (sure.value ? void signOut() : (sure.value = true))}
    >
      {/* With a key of its own, the text also changes where the browser has translated it. */}
      <span key={sure.value}>
        {guest && sure.value ? "Sign out and lose these conversations" : "Sign out"}
      </span>
    </button>
  );
}

interface ChoiceProps<T extends string> {
  legend: string;
  value: T;
  among: readonly T[];
  onChoice: (value: T) => void;
}

function Choice<T extends string>({ legend, value, among, onChoice }: ChoiceProps<T>) {
  return (
    <fieldset class="choice">
      <legend>{legend}</legend>
      <div>
        {among.map((each) => (
          <label key={each}>
            <input
              type="radio"
              name={legend}
              checked={each === value}
              onChange={() => onChoice(each)}
            />
            <span>{each}</span>
          </label>
        ))}
      </div>
    </fieldset>
  );
}
