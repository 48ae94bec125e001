// What a tab shows of a conversation, after what the stream and the reader did.
import { expect, test } from "vitest";
import type { Accepted, Conversation, Message, PageEvent, Snapshot } from "./shapes";
import {
  accept,
  answerOf,
  applyPage,
  branch,
  choose,
  earlier,
  emptyTree,
  merge,
  type Tree,
  withSnapshot,
  writing,
} from "./tree";

const conversation = (shown: string | null = null): Conversation => ({
  ...{ id: "c", title: "", pinned: false, archived: false, model: "demo", system_prompt: null },
  ...{ shown_message_id: shown, active_generations: [], updated_at: "2026-01-01T00:00:00Z" },
});

const question = (id: string, parent_id: string | null, more: Partial<Message> = {}): Message => ({
  ...{
    id,
    parent_id,
    conversation_id: "c",
    role: "user",
    status: "completed",
    text: id,
    model: null,
    generation_id: null,
  },
  ...{
    content: [{ type: "text", text: id }],
    finish_reason: null,
    error: null,
    usage: null,
    siblings: [id],
    created_at: "",
  },
  ...more,
});

const answer = (id: string, parent_id: string, more: Partial<Message> = {}): Message =>
  question(id, parent_id, { role: "assistant", generation_id: `g_${id}`, model: "demo", ...more });

const opened = (messages: Message[], generations: Snapshot[] = []): PageEvent => ({
  ...{
    type: "opened",
    conversation: conversation(messages.at(-1)?.id),
    messages,
    before: null,
    generations,
  },
});

const told = (message: Message): PageEvent => ({ type: "message_changed", message });
const shows = (shown: string): PageEvent => ({
  type: "conversation_changed",
  conversation: conversation(shown),
});
const delta = (id: string, seq: number, text: string): PageEvent => ({
  type: "text_delta",
  generation_id: id,
  seq,
  part: 0,
  text,
});
const queued = (id: string): PageEvent => ({ type: "queued", generation_id: id, seq: 1 });

const after = (tree: Tree, ...events: PageEvent[]): Tree => events.reduce(applyPage, tree);
const start = after(emptyTree("c"), opened([question("q1", null), answer("a1", "q1")]));
const ids = (tree: Tree) => branch(tree).map(({ id }) => id);
const said = (tree: Tree, id: string) =>
  answerOf(tree, tree.messages.get(id)!)
    .parts.map(({ part }) => ("text" in part ? part.text : ""))
    .join("");

test("an answer grows by its events while its stored row lags behind", () => {
  const tree = after(
    start,
    shows("a2"),
    told(question("q2", "a1")),
    told(answer("a2", "q2", { status: "queued", content: [] })),
    ...[queued("g_a2"), delta("g_a2", 2, "Hel"), delta("g_a2", 3, "lo")],
    told(answer("a2", "q2", { status: "running", content: [{ type: "text", text: "Hel" }] })),
  );

  expect(ids(tree)).toEqual(["q1", "a1", "q2", "a2"]);
  expect(said(tree, "a2")).toBe("Hello");
  expect(writing(tree)?.id).toBe("a2");
});

test("an answer that was written unseen is shown as stored", () => {
  const before = after(
    start,
    told(question("q2", "a1")),
    told(answer("a2", "q2", { status: "running", content: [] })),
  );
  const tree = after(
    before,
    told(answer("a2", "q2", { content: [{ type: "text", text: "All." }] })),
  );

  expect(said(tree, "a2")).toBe("All.");
  expect(writing(tree)).toBeNull();
});

test("events of a branch that is not loaded are kept, so that it is complete when it is shown", () => {
  const tree = after(start, queued("g_x"), delta("g_x", 2, "one "), delta("g_x", 3, "two"));
  const merged = merge(
    tree,
    [
      question("q1", null),
      answer("x", "q1", { status: "running", content: [{ type: "text", text: "one" }] }),
    ],
    "x",
  );

  expect(said(merged, "x")).toBe("one two");
});

test("an answer does not start with an event that cannot be its first", () => {
  expect(after(start, delta("g_unknown", 7, "tail")).answers.size).toBe(0);
});

test("a tab follows the shown leaf until its reader chooses a branch", () => {
  const both = after(start, told(answer("b1", "q1", { siblings: ["a1", "b1"] })));
  const follows = after(both, shows("b1"));
  const stays = after(
    merge(choose(both, "a1"), [answer("a1", "q1", { siblings: ["a1", "b1"] })], "a1"),
    shows("b1"),
  );

  expect(ids(follows)).toEqual(["q1", "b1"]);
  expect(ids(stays)).toEqual(["q1", "a1"]);
  expect(stays.messages.get("a1")!.siblings).toEqual(["a1", "b1"]);
});

test("a chosen branch grows when somebody continues it", () => {
  const chose = merge(choose(start, "a1"), [], "a1");

  expect(ids(after(chose, told(question("q2", "a1")), told(answer("a2", "q2"))))).toEqual([
    "q1",
    "a1",
    "q2",
    "a2",
  ]);
});

test("a branch that is not loaded is requested, and shown once it is loaded", () => {
  const wanting = after(start, shows("z"));

  expect([wanting.wanted, ids(wanting)]).toEqual(["z", ["q1", "a1"]]);
  expect(ids(merge(wanting, [question("q0", null), answer("z", "q0")], "z"))).toEqual(["q0", "z"]);
});

const promised: Accepted = {
  conversation_id: "c",
  question_id: "q2",
  message_id: "a2",
  generation_id: "g_a2",
  model: "demo",
};

test("an accepted message is shown at once, and outdated events do not remove it", () => {
  const sent = accept(start, promised, "Hello?", "a1");

  expect(ids(sent)).toEqual(["q1", "a1", "q2", "a2"]);
  expect(ids(after(sent, shows("a1")))).toEqual(["q1", "a1", "q2", "a2"]);
  expect(
    ids(
      after(
        sent,
        told(question("q2", "a1")),
        told(answer("a2", "q2", { status: "queued" })),
        shows("a1"),
      ),
    ),
  ).toEqual(["q1", "a1"]);
});

test("a response that arrives after the stream changes nothing", () => {
  const streamed = after(
    start,
    ...[
      shows("a2"),
      told(question("q2", "a1")),
      told(answer("a2", "q2", { status: "queued", content: [] })),
    ],
    ...[queued("g_a2"), delta("g_a2", 2, "Hi")],
  );

  expect(said(accept(streamed, promised, "Hello?", "a1"), "a2")).toBe("Hi");
});

test("a response that arrives after a short answer completed leaves it complete", () => {
  const streamed = after(
    start,
    shows("a2"),
    told(question("q2", "a1")),
    told(answer("a2", "q2", { content: [{ type: "text", text: "Hi." }] })),
  );
  const accepted = accept(streamed, promised, "Hello?", "a1");

  expect([said(accepted, "a2"), writing(accepted)]).toEqual(["Hi.", null]);
});

test("text loaded ahead of the stream is not repeated by it", () => {
  const hello = [queued("g_a2"), delta("g_a2", 2, "Hel"), delta("g_a2", 3, "lo")];
  const partly = answer("a2", "q2", {
    status: "running",
    content: [{ type: "text", text: "Hel" }],
  });
  const wholly = answer("a2", "q2", { content: [{ type: "text", text: "Hello" }] });

  expect(said(after(merge(start, [question("q2", "a1"), partly]), ...hello), "a2")).toBe("Hello");
  expect(
    said(
      after(merge(after(start, hello[0]!), [question("q2", "a1"), wholly]), ...hello.slice(1)),
      "a2",
    ),
  ).toBe("Hello");
});

test("reopening keeps loaded older messages and a chosen branch", () => {
  const older = merge(start, []);
  const newest = opened([question("q2", "a1"), answer("a2", "q2")]);
  const chosen = merge(choose(start, "a1"), [], "a1");

  expect(ids(after(older, newest))).toEqual(["q1", "a1", "q2", "a2"]);
  expect(after(chosen, newest)).toMatchObject({ leaf: "a1", chosen: true, wanted: "a1" });
});

test("a snapshot in `opened` is the content, and deltas continue it", () => {
  const snapshot: Snapshot = {
    ...{
      id: "g_a1",
      message_id: "a1",
      status: "running",
      seq: 9,
      content: [{ type: "text", text: "so far" }],
    },
    ...{ finish_reason: null, usage: null, error: null },
  };
  const tree = after(
    emptyTree("c"),
    opened(
      [question("q1", null), answer("a1", "q1", { status: "running", content: [] })],
      [snapshot],
    ),
    ...[delta("g_a1", 9, "no"), delta("g_a1", 10, ", so good")],
  );

  expect(said(tree, "a1")).toBe("so far, so good");
});

test("stopping shows the end at once", () => {
  const running = after(
    start,
    told(answer("a1", "q1", { status: "running", generation_id: "g2", content: [] })),
    queued("g2"),
  );
  const stopped = withSnapshot(running, {
    ...{
      id: "g2",
      message_id: "a1",
      status: "cancelled",
      seq: 5,
      content: [],
      finish_reason: null,
      usage: null,
      error: null,
    },
  });

  expect(writing(running)?.id).toBe("a1");
  expect(writing(stopped)).toBeNull();
});

test("there is a cursor for older messages only if there are any", () => {
  expect(earlier(start)).toBeNull();
  expect(earlier(after(emptyTree("c"), opened([question("q9", "a8"), answer("a9", "q9")])))).toBe(
    "q9",
  );
});

test("an answer keeps its text when its continuation fails, and shows the error", () => {
  const cut = answer("a1", "q1", {
    generation_id: "gen_1",
    content: [{ type: "text", text: "Hello" }],
    finish_reason: "length",
  });
  const accepted: Accepted = {
    ...{ conversation_id: "c", question_id: "q1", message_id: "a1", generation_id: "gen_2" },
    ...{ model: "demo", events_url: "" },
  };
  const refused = {
    ...{ type: "failed" as const, generation_id: "gen_2", seq: 2 },
    ...{ code: "provider_refused", message: "no", retryable: false },
  };

  const before = after(emptyTree("c"), opened([question("q1", null), cut]));
  const tree = after(accept(before, accepted, null, null), queued("gen_2"), refused, told(cut));

  expect(answerOf(tree, tree.messages.get("a1")!)).toMatchObject({
    ...{ status: "completed", finishReason: "length", error: { code: "provider_refused" } },
    parts: [{ index: 0, part: { type: "text", text: "Hello" } }],
  });
  const again = after(accept(tree, { ...accepted, generation_id: "gen_3" }, null, null));
  expect(answerOf(again, again.messages.get("a1")!).error).toBeNull();
});
