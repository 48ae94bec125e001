// Who the page is for: coming in, and being told what was refused.
import { signal } from "@preact/signals";
import { call, isAway, Problem, untilReached } from "./api";

export const session = signal<"starting" | "unreachable" | "ready" | "signed_out">("starting");
export const notice = signal<string | null>(null);

export function report(error: unknown): void {
  if (error instanceof Problem && error.status === 401) session.value = "signed_out";
  notice.value = isAway(error)
    ? `${(error as Problem).message} Try again: nothing is done twice.`
    : (error as Error).message;
}

/** The token of a sign-in link, which does not stay in the address. */
function takeToken(): string | null {
  const here = new URL(location.href);
  const token = here.searchParams.get("token") ?? new URLSearchParams(here.hash.slice(1)).get("token");
  if (token) history.replaceState(null, "", here.pathname);
  return token;
}

/** By link, by the session there is, or as a guest; waits for a server that is away. */
export async function signIn(token = takeToken()): Promise<void> {
  const enter = async () => {
    if (token) await call("POST", "/api/session", { token }).catch(tell); // refused: the session there is may do
    token = null;
    await call("POST", "/api/session", {}); // who is signed in stays who they are; others come in as guests
  };
  try {
    await untilReached(
      enter,
      () => true,
      () => (session.value = "unreachable"),
    );
    session.value = "ready";
  } catch (error) {
    session.value = "signed_out";
    notice.value ??= (error as Problem).message;
  }
}

function tell(refusal: Problem): void {
  if (isAway(refusal)) throw refusal;
  notice.value = refusal.message;
}
