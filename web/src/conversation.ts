// The open conversation: its address, the stream that keeps it up to date, and navigation between
// branches and pages.
import { computed, signal } from "@preact/signals";
import { call, Problem } from "./api";
import * as conversations from "./conversations";
import { openDraft } from "./drafts";
import { announce, notify } from "./notices";
import { report, session } from "./session";
import { sentencesAfter } from "./state/announcements";
import { active } from "./state/answer";
import type { Conversation, Message, Page, PageEvent, Snapshot } from "./state/shapes";
import {
  answerOf,
  applyPage,
  choose,
  earlier,
  emptyTree,
  merge,
  type Tree,
  withSnapshot,
  writing as writingOf,
} from "./state/tree";
import { cost_ms } from "./text/painter";
import { followPage, type Link } from "./stream";
import { at, herePath } from "./root";

const draw_every_ms = 33; // tokens may arrive faster than is worth rendering
const draw_most_ms = 250;
const wanted_after_ms = 200;
const remembered_max = 8;
const announce_every_ms = 5000;

export const tree = signal<Tree>(emptyTree(null));
export const link = signal<Link>("connecting");
/** A message to scroll to and highlight once it is loaded. */
export const highlighted = signal<string | null>(null);
export const writing = computed(() => writingOf(tree.value));
export const openId = computed(() => tree.value.id);

const remembered = new Map<string, Tree>();
let latest = tree.peek();
let cursor: string | null = null;
let following = new AbortController();
let drawing = 0;

/** The only way to change the open conversation: `step` is a pure function of the state. */
export function update(step: (tree: Tree) => Tree, soon = false): void {
  latest = step(latest);
  if (soon)
    drawing ||= window.setTimeout(
      draw,
      Math.min(Math.max(draw_every_ms, cost_ms * 5), draw_most_ms),
    );
  else draw();
}

function draw(): void {
  clearTimeout(drawing);
  drawing = 0;
  if (tree.peek() === latest) return;
  tree.value = latest;
  fetchWanted();
  announceAnswer();
}

// ── Navigation ───────────────────────────────────────────────────────────

export const addressed = () => /^\/c\/([^/]+)/.exec(herePath())?.[1] ?? null;

export function go(id: string | null): void {
  if (id !== addressed()) history.pushState(null, "", at(id ? `/c/${id}` : "/"));
  open(id);
}

/** Shows a conversation, at first from memory if it was open before. */
export function open(id: string | null, known?: Tree): void {
  if (latest.id) remember(latest);
  openDraft(id);
  latest = known ?? (id ? remembered.get(id) : undefined) ?? emptyTree(id);
  draw();
  void follow(id);
}

function remember(left: Tree): void {
  remembered.delete(left.id!);
  remembered.set(left.id!, left);
  for (const oldest of remembered.keys())
    if (remembered.size > remembered_max) remembered.delete(oldest);
}

async function follow(conversationId: string | null): Promise<void> {
  following.abort();
  const { signal } = (following = new AbortController());
  try {
    await followPage({
      conversationId,
      cursor: () => cursor,
      onEvents: (events, last) => signal.aborted || take(events, last),
      forget: () => (cursor = null),
      onLink: (now) => signal.aborted || (link.value = now),
      signal,
    });
  } catch (error) {
    if (signal.aborted) return;
    if (error instanceof Problem && error.status === 404 && conversationId)
      leave("This conversation does not exist, or is not yours.");
    else report(error);
  }
}

function leave(why: string): void {
  remembered.delete(latest.id ?? "");
  history.replaceState(null, "", at("/"));
  latest = emptyTree(null);
  open(null);
  notify(why);
}

function take(events: PageEvent[], last: string): void {
  const fresh = cursor === null || events.some(({ type }) => type === "resync");
  cursor = last;
  conversations.take(events);
  if (fresh) void conversations.refresh();
  const gone = events.some((each) => each.type === "conversation_removed" && each.id === latest.id);
  update(
    (tree) => events.reduce(applyPage, tree),
    events.every(({ type }) => type.endsWith("_delta")),
  );
  if (gone) leave("This conversation was deleted.");
}

/** Opens the addressed conversation and follows the address from then on. */
export function start(): void {
  addEventListener("popstate", () => open(addressed()));
  open(addressed());
}

// ── Loading messages ─────────────────────────────────────────────────────

const page_messages = 50;

const messagesOf = (id: string, query: string) =>
  call<Page<Message>>("GET", `/api/conversations/${id}/messages?limit=${page_messages}${query}`);

let reading = "";

/** Loads older messages of the branch; true if there were any. */
export async function readEarlier(): Promise<boolean> {
  const [id, before] = [latest.id, earlier(latest)];
  if (!id || !before || reading === before) return false;
  reading = before;
  try {
    const page = await messagesOf(id, `&before=${before}`);
    if (latest.id === id) update((tree) => merge(tree, page.data));
    return page.data.length > 0;
  } catch (error) {
    report(error);
    return false;
  } finally {
    reading = "";
  }
}

let fetching: string | null = null;

/** Loads the branch this tab wants to show, unless the stream delivers it first. */
function fetchWanted(): void {
  const { id, wanted } = latest;
  if (!id || !wanted || fetching === wanted) return;
  fetching = wanted;
  setTimeout(async () => {
    try {
      if (latest.id !== id || latest.wanted !== wanted) return;
      const page = await messagesOf(id, `&leaf=${wanted}`);
      if (latest.id === id && latest.wanted === wanted)
        update((tree) => merge(tree, page.data, wanted));
    } catch (error) {
      report(error);
    } finally {
      fetching = null;
    }
  }, wanted_after_ms);
}

/** Shows the branch of a message down to its newest leaf; this tab then stays there. */
export async function showBranch(messageId: string): Promise<void> {
  const { id } = latest;
  if (!id) return;
  try {
    const { shown_message_id: leaf } = await call<Conversation>(
      "PATCH",
      `/api/conversations/${id}`,
      { shown_message_id: messageId },
    );
    if (!leaf || latest.id !== id) return;
    const page = await messagesOf(id, `&leaf=${leaf}`);
    if (latest.id === id) update((tree) => merge(choose(tree, leaf), page.data, leaf));
  } catch (error) {
    report(error);
  }
}

const search_pages_max = 40;

/** Opens a conversation and shows a message in it, on any page or branch. */
export async function reveal(conversationId: string, messageId: string | null): Promise<void> {
  go(conversationId);
  if (!messageId) return;
  await until(() => latest.opened || latest.id !== conversationId);
  for (
    let page = 0;
    page < search_pages_max && latest.id === conversationId && !isShown(messageId);
    page++
  )
    if (!(await readEarlier())) {
      await showBranch(messageId);
      break;
    }
  if (latest.id === conversationId) highlighted.value = messageId;
}

function isShown(id: string): boolean {
  for (let at = latest.leaf; at; at = latest.messages.get(at)?.parent_id ?? null)
    if (at === id) return true;
  return false;
}

const until = (condition: () => boolean) =>
  new Promise<void>((resolve) => {
    const stop = tree.subscribe(() => condition() && (resolve(), setTimeout(() => stop())));
  });

// ── Stopping ─────────────────────────────────────────────────────────────

export async function stop(): Promise<void> {
  const answer = writingOf(latest);
  if (!answer) return;
  try {
    const shown = await call<Snapshot>(
      "POST",
      `/api/generations/${answer.generation_id}/cancel?wait_s=2`,
    );
    update((tree) => withSnapshot(tree, shown));
  } catch (error) {
    report(error);
  }
}

// ── Screen reader announcements ──────────────────────────────────────────

const endings = {
  completed: "Answer complete.",
  cancelled: "Answer stopped.",
  failed: "The answer failed.",
  queued: "",
  running: "",
};
let announced: { generation: string; said: number; at_ms: number } | null = null;

/** Announces whole sentences every few seconds while an answer is written, and its end. */
function announceAnswer(): void {
  const last = latest.leaf ? latest.messages.get(latest.leaf) : undefined;
  if (!last?.generation_id) return;
  const answer = answerOf(latest, last);
  const text = answer.parts.map(({ part }) => (part.type === "text" ? part.text : "")).join("");
  if (active(answer.status) && announced?.generation !== last.generation_id) {
    announced = { generation: last.generation_id, said: text.length, at_ms: Date.now() };
    announce("Answering.");
  }
  if (announced?.generation !== last.generation_id) return;
  const over = !active(answer.status);
  if (!over && Date.now() - announced.at_ms < announce_every_ms) return;
  const { words, said } = sentencesAfter(text, announced.said, over);
  if (words || over) announce(over ? `${words} ${endings[answer.status]}` : words);
  announced = over ? null : { ...announced, said, at_ms: Date.now() };
}

session.subscribe((now) => now === "signed_out" && following.abort());
