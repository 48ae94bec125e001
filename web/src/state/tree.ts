// The open conversation as a tree of messages, with the branch this tab shows: events in, state
// out.
import { active, type Answer, answerFrom, applyEvent, type StreamEvent } from "./answer";
import type {
  Accepted,
  AnswerEvent,
  Conversation,
  Message,
  Opened,
  PageEvent,
  Snapshot,
} from "./shapes";

export interface Tree {
  id: string | null;
  conversation: Conversation | null;
  messages: ReadonlyMap<string, Message>;
  /**
   * Live answers by generation; also those of branches that are not loaded, so that no answer is
   * ever incomplete.
   */
  answers: ReadonlyMap<string, Answer>;
  /** The last message of the branch this tab shows. */
  leaf: string | null;
  /** True once the reader chose a branch: from then on, other tabs do not move this one. */
  chosen: boolean;
  /**
   * The leaf to show once it is loaded; the caller loads its branch unless the stream delivers it.
   */
  wanted: string | null;
  /**
   * The answer the server accepted and the stream has not delivered yet; until then, the leaf in
   * the stream's events is outdated.
   */
  ahead: string | null;
  /** Whether the `opened` event has arrived. */
  opened: boolean;
}

export const emptyTree = (id: string | null): Tree => ({
  ...{ id, conversation: null, messages: new Map(), answers: new Map() },
  ...{ leaf: null, chosen: false, wanted: null, ahead: null, opened: id === null },
});

/** The loaded part of the shown branch, oldest first. */
export function branch(tree: Tree): Message[] {
  const found: Message[] = [];
  for (let id = tree.leaf; id !== null;) {
    const message = tree.messages.get(id);
    if (!message) break;
    found.push(message);
    id = message.parent_id;
  }
  return found.reverse();
}

/** The cursor for older messages of the branch; null if there are none. */
export function earlier(tree: Tree): string | null {
  const first = branch(tree)[0];
  return first?.parent_id ? first.id : null;
}

const stored = new WeakMap<Message, Answer>();

/** The answer of a message: live while it is being written, else as stored. */
export function answerOf(tree: Tree, message: Message): Answer {
  const live = message.generation_id ? tree.answers.get(message.generation_id) : undefined;
  if (live) return live;
  const found = stored.get(message) ?? answerFrom(message);
  stored.set(message, found);
  return found;
}

/** The answer being written at the end of the branch, if any. */
export function writing(tree: Tree): Message | null {
  const last = tree.leaf ? tree.messages.get(tree.leaf) : undefined;
  return last?.role === "assistant" && active(answerOf(tree, last).status) ? last : null;
}

export function applyPage(tree: Tree, event: PageEvent): Tree {
  switch (event.type) {
    case "opened":
      return open(tree, event);
    case "conversation_changed":
      return event.conversation.id === tree.id ? follow(tree, event.conversation) : tree;
    case "message_changed":
      return event.message.conversation_id === tree.id ? place(tree, event.message) : tree;
    case "conversation_removed":
    case "resync":
      return tree;
    default:
      return applyToAnswer(tree, event);
  }
}

function open(tree: Tree, event: Opened): Tree {
  const { conversation } = event;
  if ((conversation?.id ?? null) !== tree.id) return tree;
  const messages = new Map([
    ...tree.messages,
    ...event.messages.map((each) => [each.id, each] as const),
  ]);
  const answers = new Map(
    event.generations.map((each) => [each.id, applyEvent(blank, snapshotEvent(each))]),
  );
  const newest = event.messages.at(-1)?.id ?? null;
  const stays = tree.chosen && tree.leaf !== null && messages.has(tree.leaf);
  const leaf = stays ? tree.leaf : newest;
  // the event does not contain this branch, which may have changed
  const wanted = stays && leaf !== newest ? leaf : null;
  return {
    ...tree,
    conversation,
    messages,
    answers,
    leaf,
    wanted,
    chosen: stays,
    ahead: null,
    opened: true,
  };
}

function follow(tree: Tree, conversation: Conversation): Tree {
  const shown = conversation.shown_message_id;
  const next = { ...tree, conversation };
  if (tree.ahead) return shown === tree.ahead ? { ...next, ahead: null } : next;
  if (tree.chosen || !shown || shown === tree.leaf) return next;
  return tree.messages.has(shown)
    ? { ...next, leaf: shown, wanted: null }
    : { ...next, wanted: shown };
}

function place(tree: Tree, message: Message): Tree {
  const messages = new Map(tree.messages).set(message.id, message);
  for (const id of message.siblings) {
    const sibling = messages.get(id);
    if (sibling && sibling.siblings.length < message.siblings.length)
      messages.set(id, { ...sibling, siblings: message.siblings });
  }
  const comes = message.id === tree.wanted || (message.parent_id === tree.leaf && !tree.wanted);
  return {
    ...tree,
    messages,
    answers: withFailure(tree, message, withStored(tree.answers, message)),
    ...(comes ? { leaf: message.id, wanted: null } : {}),
    ...(message.id === tree.ahead ? { ahead: null } : {}),
  };
}

/**
 * A settled stored answer replaces a live one that has not ended. While it is being written, the
 * stream is the source.
 */
function withStored(answers: Tree["answers"], message: Message): Tree["answers"] {
  const id = message.generation_id;
  if (!id) return answers;
  const live = answers.get(id);
  if (active(message.status))
    return live ? answers : new Map(answers).set(id, { ...blank, status: message.status });
  return live && active(live.status)
    ? new Map(answers).set(id, { ...answerFrom(message), seq: Infinity })
    : answers;
}

/**
 * A message whose continuation failed with nothing new goes back to the generation before, which is
 * older than the failed one; the answer gets the error of the continuation.
 */
function withFailure(tree: Tree, message: Message, answers: Tree["answers"]): Tree["answers"] {
  const [id, continuation] = [message.generation_id, tree.messages.get(message.id)?.generation_id];
  const error = continuation ? answers.get(continuation)?.error : null;
  return id && continuation && id < continuation && message.status === "completed" && error
    ? new Map(answers).set(id, { ...answerFrom(message), seq: Infinity, error })
    : answers;
}

function applyToAnswer(tree: Tree, event: AnswerEvent): Tree {
  const before = tree.answers.get(event.generation_id);
  if (!before && event.type !== "queued" && event.type !== "snapshot") return tree;
  const after = applyEvent(before ?? blank, event);
  return after === before
    ? tree
    : { ...tree, answers: new Map(tree.answers).set(event.generation_id, after) };
}

const blank: Answer = answerFrom({
  status: "queued",
  content: [],
  finish_reason: null,
  error: null,
});

const snapshotEvent = ({
  seq,
  status,
  content,
  finish_reason,
  error,
  usage,
}: Snapshot): StreamEvent => ({
  ...{ type: "snapshot", seq, status, content, finish_reason, error, usage },
});

/** Applies the response to cancelling, as if the stream had delivered it. */
export const withSnapshot = (tree: Tree, shown: Snapshot): Tree =>
  applyToAnswer(tree, { ...snapshotEvent(shown), generation_id: shown.id });

/** Adds the accepted question and answer before the stream delivers them. */
export function accept(
  tree: Tree,
  accepted: Accepted,
  text: string | null,
  parent_id: string | null,
): Tree {
  if (tree.id !== accepted.conversation_id) return tree;
  const messages = new Map(tree.messages);
  const { question_id, message_id, generation_id, conversation_id, model } = accepted;
  const known = messages.get(message_id)?.generation_id === generation_id;
  const shared = {
    conversation_id,
    finish_reason: null,
    error: null,
    usage: null,
    created_at: new Date().toISOString(),
  };
  if (text !== null && !messages.has(question_id))
    messages.set(question_id, {
      ...{
        ...shared,
        id: question_id,
        parent_id,
        role: "user",
        status: "completed",
        text,
        model: null,
      },
      ...{ generation_id: null, content: [{ type: "text", text }], siblings: [question_id] },
    });
  if (!known)
    messages.set(message_id, {
      ...{
        ...shared,
        id: message_id,
        parent_id: question_id,
        role: "assistant",
        status: "queued",
        text: "",
        model,
      },
      ...{
        generation_id,
        content: [],
        siblings: messages.get(message_id)?.siblings ?? [message_id],
      },
    });
  const answers =
    known || tree.answers.has(generation_id)
      ? tree.answers
      : new Map(tree.answers).set(generation_id, blank);
  return {
    ...tree,
    messages,
    answers,
    leaf: message_id,
    wanted: null,
    ahead: known ? null : message_id,
  };
}

/** Adds a page of messages that was loaded separately; with `leaf`, this tab shows that branch. */
export function merge(tree: Tree, page: Message[], leaf?: string): Tree {
  const messages = new Map(tree.messages);
  for (const message of page) messages.set(message.id, message);
  const answers = page.reduce(withStored, tree.answers);
  const going = leaf !== undefined && messages.has(leaf);
  return { ...tree, messages, answers, ...(going ? { leaf, wanted: null } : {}) };
}

/** The reader of this tab chose a branch. */
export const choose = (tree: Tree, leaf: string): Tree => ({
  ...tree,
  chosen: true,
  wanted: leaf,
  ahead: null,
});
