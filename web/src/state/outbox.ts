// Messages that the server has not confirmed: stored with their idempotency key, so that a retry
// has no second effect.
import type { Tree } from "./tree";

export type Asking =
  | {
      kind: "send";
      text: string;
      conversationId: string | null;
      parentId: string | null;
      model?: string;
      systemPrompt?: string;
    }
  | {
      kind: "edit";
      text: string;
      conversationId: string;
      messageId: string;
      parentId: string | null;
    }
  | { kind: "regenerate" | "continue"; conversationId: string; messageId: string };

export interface Pending {
  key: string;
  asking: Asking;
  accountId: string;
  /** The tab that sent it, which navigates to the new conversation. */
  tab: string;
  at_ms: number;
  /** The sibling questions that existed before, to tell the new one from them. */
  before: string[];
}

/** The progress of sending; only `refused` needs the person to act. */
export interface Progress {
  state: "sending" | "waiting" | "refused";
  reason: string | null;
}

// the server remembers a key for 24 hours: a later retry would take effect twice
const key_kept_ms = 23 * 3_600_000;

export const isTooOld = (pending: Pending, now_ms: number): boolean =>
  now_ms - pending.at_ms > key_kept_ms;

/** The request; the same for every attempt. */
export function requestOf({ asking }: Pending): { path: string; body: Record<string, unknown> } {
  switch (asking.kind) {
    case "send": {
      const { text, conversationId, parentId, model, systemPrompt } = asking;
      const place = conversationId ? { conversation_id: conversationId, parent_id: parentId } : {};
      const options = {
        ...(model ? { model } : {}),
        ...(systemPrompt ? { system_prompt: systemPrompt } : {}),
      };
      return { path: "/api/messages", body: { text, ...place, ...options } };
    }
    case "edit":
      return { path: `/api/messages/${asking.messageId}/edit`, body: { text: asking.text } };
    default:
      return { path: `/api/messages/${asking.messageId}/${asking.kind}`, body: {} };
  }
}

export const textOf = ({ asking }: Pending): string | null =>
  "text" in asking ? asking.text : null;

export const parentOf = ({ asking }: Pending): string | null =>
  "parentId" in asking ? asking.parentId : null;

/**
 * Whether it is shown in the open conversation; a first message is shown only in the tab that sent
 * it.
 */
export const isShownIn = (pending: Pending, conversationId: string | null, tab: string): boolean =>
  conversationId === null
    ? pending.asking.conversationId === null && pending.tab === tab
    : pending.asking.conversationId === conversationId;

/** Whether the stream has delivered its question before the response arrived. */
export function hasArrived(tree: Tree, pending: Pending): boolean {
  const [text, parent] = [textOf(pending), parentOf(pending)];
  if (text === null) return false;
  for (const each of tree.messages.values())
    if (
      each.role === "user" &&
      each.parent_id === parent &&
      each.text === text &&
      !pending.before.includes(each.id)
    )
      return true;
  return false;
}

/** The questions under a parent. */
export const questionsUnder = (tree: Tree, parentId: string | null): string[] =>
  [...tree.messages.values()]
    .filter((each) => each.role === "user" && each.parent_id === parentId)
    .map(({ id }) => id);
