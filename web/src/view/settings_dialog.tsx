// Settings: how the page looks, API keys, the account.
import { useSignal } from "@preact/signals";
import { signOut, who } from "../session";
import { change, settings } from "../settings";
import { ApiKeys } from "./api_keys";
import { Dialog } from "./dialog";

export function SettingsDialog() {
  const { theme, size, enterSends } = settings.value;
  return (
    <Dialog title="Settings">
      <Choice legend="Colours" value={theme} among={["system", "light", "dark"]} onChoice={(theme) => change({ theme })} />
      <Choice legend="Text size" value={size} among={["small", "medium", "large"]} onChoice={(size) => change({ size })} />
      <label class="switch">
        <input type="checkbox" checked={enterSends} onChange={(event) => change({ enterSends: event.currentTarget.checked })} />
        <span>
          Enter sends <small>Otherwise Ctrl or ⌘ with Enter does; Shift with Enter always makes a new line.</small>
        </span>
      </label>
      <ApiKeys />
      <section class="account">
        <h3>Account</h3>
        {who.value?.user ? (
          <p>Signed in as {who.value.user.email}.</p>
        ) : (
          <p>You are a guest: your conversations are in this browser's session only. Open a sign-in link here and they become yours to keep.</p>
        )}
        <SignOut guest={who.value?.guest ?? false} />
      </section>
    </Dialog>
  );
}

/** Who leaves as a guest cannot come back to what was written: that is asked twice. */
function SignOut({ guest }: { guest: boolean }) {
  const sure = useSignal(!guest);
  return (
    <button type="button" class="button" onClick={() => (sure.value ? void signOut() : (sure.value = true))}>
      {guest && sure.value ? "Leave, and lose these conversations" : "Sign out"}
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
            <input type="radio" name={legend} checked={each === value} onChange={() => onChoice(each)} />
            <span>{each}</span>
          </label>
        ))}
      </div>
    </fieldset>
  );
}
