// Sending: a message is stored until the server has confirmed it, across lost responses, reloads
// and days without a network.
import { signal } from "@preact/signals";
import { call, isAway, newKey, Problem } from "./api";
import { open, tree, update } from "./conversation";
import { draft, saveDraft, write } from "./drafts";
import { formerGuest, report, currentSession } from "./session";
import type { Accepted } from "./state/shapes";
import {
  type Asking,
  hasArrived,
  isShownIn,
  isTooOld,
  parentOf,
  type Pending,
  type Progress,
  questionsUnder,
  requestOf,
  textOf,
} from "./state/outbox";
import { accept, branch, emptyTree } from "./state/tree";
import { save, load, namesOf, onOtherTab, tab } from "./store";
import { waitOrOnline } from "./stream";
import { at, herePath } from "./root";

export interface Sent {
  pending: Pending;
  progress: Progress;
}

const delay_max_ms = 15_000;
const stored = (key: string) => `sent:${key}`;

/** Messages that the server has not confirmed, oldest first. */
export const outbox = signal<Sent[]>([]);

/** Resumes what a reload or a closed tab left behind. */
export function start(): void {
  for (const key of namesOf("sent:")) {
    const pending = load<Pending>(stored(key));
    if (pending) resume(pending);
  }
  onOtherTab((name) => {
    const key = name.startsWith("sent:") ? name.slice(5) : "";
    if (key && !load(stored(key))) forget(key); // another tab got the response
  });
}

function resume(pending: Pending): void {
  if (pending.accountId !== currentSession.value?.account.id && pending.accountId !== formerGuest)
    return;
  outbox.value = [...outbox.value, { pending, progress: { state: "waiting", reason: null } }];
  void withLock(pending, () => deliver(pending));
}

/** Stores a message, then sends it until the server confirms it. */
export function send(asking: Asking): void {
  const accountId = currentSession.value?.account.id ?? "";
  const draftPending: Pending = {
    key: newKey(),
    asking,
    accountId,
    tab,
    at_ms: Date.now(),
    before: [],
  };
  const pending = { ...draftPending, before: questionsUnder(tree.value, parentOf(draftPending)) };
  save(stored(pending.key), pending);
  outbox.value = [...outbox.value, { pending, progress: { state: "sending", reason: null } }];
  void withLock(pending, () => deliver(pending));
}

/**
 * One tab at a time sends a message. Without the Web Locks API, only the idempotency key prevents
 * duplicates.
 */
async function withLock(pending: Pending, work: () => Promise<void>): Promise<void> {
  if (!navigator.locks) return work();
  await navigator.locks.request(`tidemark-sent-${pending.key}`, work);
}

async function deliver(pending: Pending): Promise<void> {
  const known = () => outbox.value.some((each) => each.pending.key === pending.key);
  const { path, body } = requestOf(pending);
  for (let delay_ms = 400; known(); delay_ms = Math.min(delay_ms * 2, delay_max_ms)) {
    if (isTooOld(pending, Date.now())) return returnToDraft(pending);
    try {
      const accepted = await call<Accepted>("POST", path, body, pending.key);
      arrived(pending, accepted);
      return;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (error.status === 401) report(error);
      if (!isAway(error) && error.status !== 429 && error.status !== 401) {
        progressOf(pending.key, { state: "refused", reason: error.message });
        return;
      }
      progressOf(pending.key, {
        state: "waiting",
        reason: error.status === 429 ? error.message : null,
      });
      await waitOrOnline(
        Math.max(delay_ms * (0.5 + Math.random() / 2), (error.retry_after_s ?? 0) * 1000),
        new AbortController().signal,
      );
    }
  }
}

function arrived(pending: Pending, accepted: Accepted): void {
  const [text, parent] = [textOf(pending), parentOf(pending)];
  const here = pending.asking.conversationId;
  if (tree.value.id === accepted.conversation_id)
    update((now) => accept(now, accepted, text, parent));
  else if (
    here === null &&
    tree.value.id === null &&
    pending.tab === tab &&
    herePath() === "/"
  ) {
    history.pushState(null, "", at(`/c/${accepted.conversation_id}`));
    const empty = { ...emptyTree(accepted.conversation_id), opened: true };
    const unsent = draft.peek(); // typed while the first message was being sent
    write("");
    open(accepted.conversation_id, accept(empty, accepted, text, parent));
    if (unsent) write(unsent);
    saveDraft();
  }
  forget(pending.key);
  save(stored(pending.key), null);
}

const progressOf = (key: string, progress: Progress): void =>
  void (outbox.value = outbox.value.map((each) =>
    each.pending.key === key ? { ...each, progress } : each,
  ));

const forget = (key: string): void =>
  void (outbox.value = outbox.value.filter((each) => each.pending.key !== key));

/** Withdraws a rejected message; its text returns to the message field. */
export function returnToDraft(pending: Pending): void {
  forget(pending.key);
  save(stored(pending.key), null);
  const text = textOf(pending);
  if (text) write(draft.peek() ? `${draft.peek()}\n\n${text}` : text);
}

/** Sends a rejected message again. */
export function retry(pending: Pending): void {
  progressOf(pending.key, { state: "sending", reason: null });
  void withLock(pending, () => deliver(pending));
}

/** The pending messages of the open conversation that it does not contain yet. */
export const waiting = (): Sent[] =>
  outbox.value.filter(
    ({ pending }) => isShownIn(pending, tree.value.id, tab) && !hasArrived(tree.value, pending),
  );

/** Sends the draft, after the last message this tab shows. */
export function sendDraft(options: { model?: string; systemPrompt?: string }): void {
  const text = draft.peek();
  const now = tree.peek();
  write("");
  saveDraft();
  send({
    kind: "send",
    text,
    conversationId: now.id,
    parentId: branch(now).at(-1)?.id ?? null,
    ...(now.id ? {} : options),
  });
}
