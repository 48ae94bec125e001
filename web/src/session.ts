// The session of this browser: signing in with a link or as a guest, and signing out.
import { signal } from "@preact/signals";
import { call, isAway, Problem, untilReached } from "./api";
import { notify } from "./notices";
import type { Session } from "./state/shapes";
import { type SignInChoice, type SignInPreview, signInBody, tokenOf } from "./state/sign_in";
import { save, load, onOtherTab } from "./store";
import { at } from "./root";

export const session = signal<"starting" | "confirming" | "unreachable" | "ready" | "signed_out">(
  "starting",
);
export const currentSession = signal<Session | null>(null);
/** The guest account whose conversations were just brought into this one. */
export let formerGuest: string | null = null;
/** Why signing in failed. */
export const signInError = signal<string | null>(null);

/** Shows an error as a notice; a 401 shows how to sign in instead. */
export function report(error: unknown): void {
  if (error instanceof Problem && error.status === 401) {
    session.value = "signed_out";
    signInError.value = error.message;
  } else if (isAway(error)) notify(`${(error as Error).message} Nothing was changed; try again.`);
  else notify((error as Error).message);
}

/** The question of a sign-in link, while the page waits for its answer. */
export const signInQuestion = signal<
  (SignInPreview & { answer: (choice: SignInChoice) => void }) | null
>(null);

/** Takes the token of a sign-in link out of the address. */
function takeToken(): string | null {
  const token = tokenOf(location.hash);
  if (token) history.replaceState(null, "", location.pathname);
  return token;
}

/**
 * Signs in with a link if the person agrees, else with the session there is, else as a guest.
 * Any site can open a link of ours, so nothing happens to the session before a button is pressed.
 */
export async function signIn(): Promise<void> {
  const token = takeToken();
  // a link pasted into this tab
  addEventListener("hashchange", () => tokenOf(location.hash) && location.reload());
  try {
    const choice = token ? await confirmSignIn(token) : null;
    // keeps the session there is
    currentSession.value = await reached(() => call<Session>("POST", "/api/session", {}));
    const before = load<{ id: string; guest: boolean }>("account");
    const { account, guest } = currentSession.value;
    if (choice?.bringConversations && before?.guest && before.id !== account.id)
      formerGuest = before.id;
    if (before?.id !== account.id) save("account", { id: account.id, guest });
    onOtherTab(
      (name) =>
        name === "account" &&
        load<{ id: string }>("account")?.id !== account.id &&
        location.reload(),
    );
    session.value = "ready";
  } catch (error) {
    session.value = "signed_out";
    signInError.value ??= (error as Problem).message;
  }
}

const reached = <T>(work: () => Promise<T>) =>
  untilReached(work, () => (session.value = "unreachable"));

/**
 * Asks before it uses the token; the choice if that signed in. An invalid link leaves the session
 * there is.
 */
async function confirmSignIn(token: string): Promise<SignInChoice> {
  try {
    const preview = await reached(() =>
      call<SignInPreview>("POST", "/api/session/preview", { token }),
    );
    const choice = await new Promise<SignInChoice>((answer) => {
      signInQuestion.value = { ...preview, answer };
      session.value = "confirming";
    });
    signInQuestion.value = null;
    session.value = "starting";
    if (choice) await reached(() => call("POST", "/api/session", signInBody(token, choice)));
    return choice;
  } catch (error) {
    signInError.value = (error as Problem).message;
    notify(signInError.value);
    return null;
  }
}

/** Ends this browser's session. A guest cannot open its conversations again. */
export async function signOut(): Promise<void> {
  try {
    await call("DELETE", "/api/session");
    location.assign(at("/"));
  } catch (error) {
    report(error);
  }
}
