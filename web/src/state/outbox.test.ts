// What is kept until it is known to have arrived.
import { expect, test } from "vitest";
import { hasArrived, isShownIn, isTooOld, type Pending, requestOf } from "./outbox";
import { emptyTree, type Tree } from "./tree";

const pending = (asking: Pending["asking"], more: Partial<Pending> = {}): Pending => ({
  ...{ key: "k", asking, accountId: "a", tab: "t1", at_ms: 0, before: [], ...more },
});
const first = pending({
  kind: "send",
  text: "Hi",
  conversationId: null,
  parentId: null,
  model: "demo",
});
const next = pending({ kind: "send", text: "And?", conversationId: "c", parentId: "a1" });

test("a request names the branch it continues, and a first request its model", () => {
  expect(requestOf(first)).toEqual({ path: "/api/messages", body: { text: "Hi", model: "demo" } });
  expect(requestOf(next).body).toEqual({ text: "And?", conversation_id: "c", parent_id: "a1" });
  expect(
    requestOf(
      pending({ kind: "edit", text: "So?", conversationId: "c", messageId: "q1", parentId: null }),
    ),
  ).toEqual({
    ...{ path: "/api/messages/q1/edit", body: { text: "So?" } },
  });
  expect(requestOf(pending({ kind: "continue", conversationId: "c", messageId: "a1" })).path).toBe(
    "/api/messages/a1/continue",
  );
});

test("a first message is shown in the tab that sent it, others wherever their conversation is open", () => {
  expect(isShownIn(first, null, "t1")).toBe(true);
  expect(isShownIn(first, null, "t2")).toBe(false);
  expect(isShownIn(next, "c", "t2")).toBe(true);
  expect(isShownIn(next, null, "t1")).toBe(false);
});

test("it is not retried once the server may have forgotten its key", () => {
  expect(isTooOld(next, 22 * 3_600_000)).toBe(false);
  expect(isTooOld(next, 24 * 3_600_000)).toBe(true);
});

test("it has arrived when a new question with the same text has the same parent", () => {
  const message = { id: "q2", role: "user", parent_id: "a1", text: "And?" };
  const tree = { ...emptyTree("c"), messages: new Map([["q2", message]]) } as unknown as Tree;

  expect(hasArrived(emptyTree("c"), next)).toBe(false);
  expect(hasArrived(tree, next)).toBe(true);
  expect(hasArrived(tree, { ...next, before: ["q2"] })).toBe(false);
});
