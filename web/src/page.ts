// What the page knows, and everything a person can do with it.
import { computed, type Signal, signal } from "@preact/signals";
import { active, type Answer, answerFrom, applyEvent, type Part, type StreamEvent } from "./answer";
import { type Accepted, call, type Conversation, type Message, newKey, type Page, Problem, untilReached } from "./api";
import { follow } from "./follow";
import { notice, report, session, signIn } from "./session";

const publish_every_ms = 33; // tokens may come faster than is worth drawing

/** A message on the page; an answer being written changes in `answer`, without the rest being drawn again. */
export interface Shown {
  message: Message;
  latest: Answer;
  answer: Signal<Answer>;
  linked: Signal<boolean>;
  followed: AbortController;
  publishing: number;
}

export const conversations = signal<Page<Conversation>>({ data: [], next: null });
export const openId = signal<string | null>(null);
export const opening = signal(false);
export const messages = signal<Shown[]>([]);
export const earlier = signal<string | null>(null);
export const announcement = signal("");
/** The answer that is being written at the end of the open conversation, if one is. */
export const writing = computed(() => {
  const last = messages.value.at(-1);
  return last?.message.role === "assistant" && active(last.answer.value.status) ? last : null;
});

export async function start(): Promise<void> {
  addEventListener("popstate", () => void openFromAddress());
  document.addEventListener("visibilitychange", () => document.hidden || void refresh());
  await signIn();
  if (session.value !== "ready") return;
  await Promise.all([listConversations(), openFromAddress()]);
}

// ── Conversations ───────────────────────────────────────────────────────────────────────────────────────────────────

export async function listConversations(before?: string): Promise<void> {
  try {
    const page = await call<Page<Conversation>>(
      "GET",
      `/api/conversations${before ? `?before=${encodeURIComponent(before)}` : ""}`,
    );
    conversations.value = before ? { data: [...conversations.value.data, ...page.data], next: page.next } : page;
  } catch (error) {
    report(error);
  }
}

export const openFromAddress = () => open(/^\/c\/([^/]+)/.exec(location.pathname)?.[1] ?? null);

export function go(id: string | null): void {
  history.pushState(null, "", id ? `/c/${id}` : "/");
  notice.value = null;
  void open(id);
}

const away = "The server cannot be reached. Trying again…";

async function open(id: string | null): Promise<void> {
  leave();
  openId.value = id;
  if (!id) return;
  opening.value = true;
  const wanted = () => openId.value === id && opening.value;
  try {
    const page = await untilReached(
      () => messagesOf(id),
      wanted,
      () => (notice.value = away),
    );
    if (!page || !wanted()) return;
    if (notice.value === away) notice.value = null;
    arrive(page);
  } catch (error) {
    if (!wanted()) return;
    opening.value = false;
    if (error instanceof Problem && error.status === 404) {
      history.replaceState(null, "", "/");
      openId.value = null;
    }
    report(error);
  }
}

const messagesOf = (id: string, before?: string) =>
  call<Page<Message>>(
    "GET",
    `/api/conversations/${id}/messages${before ? `?before=${encodeURIComponent(before)}` : ""}`,
  );

function arrive(page: Page<Message>): void {
  leave();
  messages.value = page.data.map(show);
  earlier.value = page.next;
}

function leave(): void {
  for (const { followed } of messages.value) followed.abort();
  messages.value = [];
  earlier.value = null;
  opening.value = false;
}

export async function showEarlier(): Promise<void> {
  const [id, before] = [openId.value, earlier.value];
  if (!id || !before) return;
  try {
    const page = await messagesOf(id, before);
    if (openId.value !== id || earlier.value !== before) return;
    messages.value = [...page.data.map(show), ...messages.value];
    earlier.value = page.next;
  } catch (error) {
    report(error);
  }
}

/** What another device changed meanwhile; an answer being written here is left alone. */
async function refresh(): Promise<void> {
  const [id, before] = [openId.value, messages.value];
  if (session.value !== "ready") return;
  await listConversations();
  if (!id || opening.value || writing.value) return;
  const page = await messagesOf(id).catch(() => null);
  const [known, found] = [before.at(-1)?.message, page?.data.at(-1)];
  const changed = known?.id !== found?.id || known?.status !== found?.status;
  if (page && changed && messages.value === before && openId.value === id) arrive(page);
}

// ── Answers ─────────────────────────────────────────────────────────────────────────────────────────────────────────

function show(message: Message): Shown {
  const answer = answerFrom(message);
  const shown = {
    message,
    latest: answer,
    answer: signal(answer),
    linked: signal(true),
    followed: new AbortController(),
    publishing: 0,
  };
  if (message.role === "assistant" && active(message.status) && message.generation_id) void followAnswer(shown);
  return shown;
}

async function followAnswer(shown: Shown): Promise<void> {
  try {
    await follow(`/api/generations/${shown.latest.generationId}/events`, {
      mark: () => shown.latest.seq,
      forget: () => (shown.latest = { ...shown.latest, seq: 0 }),
      onEvent: (event) => take(shown, event),
      onLink: (up) => linkIs(shown, up),
      signal: shown.followed.signal,
    });
    await settle(shown);
  } catch (error) {
    const { code = "unknown", message } = error as Problem;
    shown.answer.value = { ...shown.latest, status: "failed", error: { code, message, retryable: true } };
    if (error instanceof Problem && error.status === 401) report(error);
  }
}

function linkIs(shown: Shown, up: boolean): void {
  if (shown.linked.value === up) return;
  shown.linked.value = up;
  announcement.value = up ? "Connected again" : "Connection lost, reconnecting";
}

function take(shown: Shown, event: StreamEvent): void {
  shown.latest = applyEvent(shown.latest, event);
  shown.publishing ||= window.setTimeout(() => {
    shown.publishing = 0;
    shown.answer.value = shown.latest;
  }, publish_every_ms);
}

/** Puts the stored message in the place of what was read live, once it is settled. */
async function settle(shown: Shown): Promise<void> {
  const wanted = () => !shown.followed.signal.aborted;
  const message = await untilReached(() => settled(shown), wanted);
  if (!message || !wanted()) return;
  shown.followed.abort();
  replace(message.id, show(message));
  announcement.value = {
    completed: "Answer complete",
    cancelled: "Answer stopped",
    failed: "Answer failed",
    queued: "",
    running: "",
  }[message.status];
  void listConversations();
  setTimeout(() => untitled() && void listConversations(), 3000); // titles are written after answers
}

/** The stored message, settled or with another generation; until it is, the server counts as away. */
async function settled({ message: { id }, latest }: Shown): Promise<Message> {
  const message = await call<Message>("GET", `/api/messages/${id}`);
  if (active(message.status) && message.generation_id === latest.generationId)
    throw new Problem(503, "unsettled", "The answer is not settled yet.");
  return message;
}

const untitled = () => conversations.value.data.some(({ id, title }) => id === openId.value && !title);

function replace(id: string, shown: Shown): void {
  messages.value = messages.value.map((each) => (each.message.id === id ? shown : each));
}

export async function stop(shown: Shown): Promise<void> {
  try {
    const snapshot = await call<object & { status: Answer["status"] }>(
      "POST",
      `/api/generations/${shown.latest.generationId}/cancel?wait_s=2`,
    );
    take(shown, { ...snapshot, type: "snapshot" } as StreamEvent);
    if (!active(snapshot.status)) await settle(shown);
  } catch (error) {
    report(error);
  }
}

const keys = new Map<string, string>();

/** The same request, made again after a failure, has the same key: it cannot be done twice. */
async function ask(path: string, body: object): Promise<Accepted> {
  const request = path + JSON.stringify(body);
  const key = keys.get(request) ?? newKey();
  keys.set(request, key);
  const accepted = await call<Accepted>("POST", path, body, key);
  keys.delete(request);
  return accepted;
}

/** True once the server has the message. */
export async function send(text: string): Promise<boolean> {
  const last = messages.value.at(-1);
  const here = openId.value;
  const body = { text, ...(here ? { conversation_id: here } : {}), ...(last ? { parent_id: last.message.id } : {}) };
  notice.value = null;
  try {
    const accepted = await ask("/api/messages", body);
    if (openId.value === here) {
      openId.value = accepted.conversation_id;
      if (!here) history.pushState(null, "", `/c/${accepted.conversation_id}`);
      const question = {
        ...blank(accepted, accepted.question_id, last?.message.id ?? null),
        role: "user" as const,
        status: "completed" as const,
        text,
      };
      messages.value = [...messages.value, show({ ...question, content: [{ type: "text", text }] }), begin(accepted)];
    }
    void listConversations();
    return true;
  } catch (error) {
    report(error);
    return false;
  }
}

/** `regenerate` writes another answer to the same question; `continue` goes on where the length limit was, else starts over. */
export async function again({ message, followed }: Shown, how: "regenerate" | "continue"): Promise<void> {
  notice.value = null;
  const kept = how === "continue" && message.finish_reason === "length" ? message.content : [];
  try {
    const accepted = await ask(`/api/messages/${message.id}/${how}`, {});
    followed.abort();
    const siblings = [...new Set([...message.siblings, message.id, accepted.message_id])];
    replace(message.id, begin(accepted, siblings, kept));
  } catch (error) {
    report(error);
  }
}

/** Shows another answer to the same question. */
export async function showSibling(id: string): Promise<void> {
  const here = openId.value;
  try {
    await call("PATCH", `/api/conversations/${here}`, { shown_message_id: id });
    if (here && openId.value === here) arrive(await messagesOf(here));
  } catch (error) {
    report(error);
  }
}

function begin(accepted: Accepted, siblings: string[] = [], content: Part[] = []): Shown {
  announcement.value = "Answering";
  const answer = blank(accepted, accepted.message_id, accepted.question_id);
  return show({ ...answer, generation_id: accepted.generation_id, siblings, content });
}

const blank = ({ conversation_id, model }: Accepted, id: string, parent_id: string | null): Message => ({
  ...{ id, conversation_id, parent_id, model, role: "assistant", status: "queued", content: [], text: "" },
  ...{ generation_id: null, finish_reason: null, error: null, siblings: [] },
});
