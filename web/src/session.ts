// Who the page is for: coming in, as a guest or by a link, and leaving.
import { signal } from "@preact/signals";
import { call, isAway, Problem, untilReached } from "./api";
import { say } from "./notices";
import { keep, kept, onOtherTab } from "./store";

export interface Who {
  account: { id: string };
  user: { id: string; email: string | null } | null;
  guest: boolean;
}

export const session = signal<"starting" | "unreachable" | "ready" | "signed_out">("starting");
export const who = signal<Who | null>(null);
/** The guest's account that a link just brought into this one. */
export let formerGuest: string | null = null;
/** Why nobody is signed in. */
export const refusal = signal<string | null>(null);

/** Tells a person what went wrong; whoever is not signed in any more sees how to come in. */
export function report(error: unknown): void {
  if (error instanceof Problem && error.status === 401) {
    session.value = "signed_out";
    refusal.value = error.message;
  } else if (isAway(error)) say(`${(error as Error).message} Nothing was changed; try again.`);
  else say((error as Error).message);
}

/** The token of a sign-in link, which does not stay in the address. */
function takeToken(): string | null {
  const here = new URL(location.href);
  const token = here.searchParams.get("token") ?? new URLSearchParams(here.hash.slice(1)).get("token");
  if (token) history.replaceState(null, "", here.pathname);
  return token;
}

/** By link, by the session there is, or as a guest; waits for a server that is away. */
export async function signIn(): Promise<void> {
  let token = takeToken();
  const enter = async () => {
    if (token) await call("POST", "/api/session", { token }).catch(tell); // refused: the session there is may do
    token = null;
    return call<Who>("POST", "/api/session", {}); // who is signed in stays who they are; others come in as guests
  };
  try {
    const linked = token !== null;
    who.value = await untilReached(enter, () => (session.value = "unreachable"));
    const before = kept<{ id: string; guest: boolean }>("account");
    const { account, guest } = who.value;
    if (linked && before?.guest && before.id !== account.id) formerGuest = before.id;
    if (before?.id !== account.id) keep("account", { id: account.id, guest });
    onOtherTab((name) => name === "account" && kept<{ id: string }>("account")?.id !== account.id && location.reload());
    session.value = "ready";
  } catch (error) {
    session.value = "signed_out";
    refusal.value ??= (error as Problem).message;
  }
}

function tell(error: unknown): void {
  if (isAway(error)) throw error;
  refusal.value = (error as Problem).message;
  say(refusal.value);
}

/** Ends this browser's session; for guests that is the end of what they wrote here. */
export async function signOut(): Promise<void> {
  try {
    await call("DELETE", "/api/session");
    location.assign("/");
  } catch (error) {
    report(error);
  }
}
