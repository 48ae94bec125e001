// Signing in with a one-time link: the token in the address, and the question the page asks before
// it uses the token.

/** What the server knows of a sign-in link that has not been used. */
export interface SignInPreview {
  email: string;
  /** Conversations of the guest in this browser, which can move to the account. */
  guest_conversations: number;
}

/** The person's answer: null for "Cancel". */
export type SignInChoice = { bringConversations: boolean } | null;

/**
 * The token in the fragment of a sign-in link. A query would be sent to the server and written to
 * logs, so none is read.
 */
export const tokenOf = (hash: string): string | null =>
  (hash.startsWith("#") && new URLSearchParams(hash.slice(1)).get("token")) || null;

/** The body of `POST /api/session` that signs in. */
export const signInBody = (
  token: string,
  choice: NonNullable<SignInChoice>,
): Record<string, unknown> => ({
  token,
  bring_conversations: choice.bringConversations,
});

/** The label of the checkbox; null where the guest has no conversations. */
export const bringLabel = ({ guest_conversations: count }: SignInPreview): string | null => {
  if (count <= 0) return null;
  return count === 1
    ? "Bring along 1 conversation of this browser"
    : `Bring along ${count} conversations of this browser`;
};
