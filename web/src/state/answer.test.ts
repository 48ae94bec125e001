// What an answer is after its events: in, out, nothing else.
import { expect, test } from "vitest";
import { type Answer, answerFrom, applyEvent, type StreamEvent } from "./answer";

const fresh = answerFrom({ status: "queued", content: [], finish_reason: null, error: null });

const after = (...events: unknown[]): Answer => (events as StreamEvent[]).reduce(applyEvent, fresh);

const text = (answer: Answer) =>
  answer.parts.map(({ part }) => ("text" in part ? part.text : part.type));

const delta = (seq: number, text: string, part = 0) => ({ seq, type: "text_delta", part, text });

test("deltas of a part are joined in order until the answer is complete", () => {
  const answer = after(
    { seq: 1, type: "queued" },
    { seq: 2, type: "started" },
    delta(3, "Hel"),
    delta(4, "lo"),
    {
      seq: 5,
      type: "completed",
      finish_reason: "stop",
    },
  );

  expect(answer).toMatchObject({ seq: 5, status: "completed", finishReason: "stop", error: null });
  expect(text(answer)).toEqual(["Hello"]);
});

test("an event that is already included changes nothing", () => {
  const answer = after(delta(3, "Hello"));

  expect(applyEvent(answer, delta(3, "Hello") as StreamEvent)).toBe(answer);
  expect(applyEvent(answer, { seq: 2, type: "restarted" })).toBe(answer);
});

test("parts keep the order of their index, whatever order they arrive in", () => {
  const answer = after(
    { seq: 1, type: "tool_call", part: 2, call_id: "c", name: "tide", arguments: "{}" },
    { seq: 2, type: "reasoning_delta", part: 0, text: "think" },
    delta(3, "say", 1),
    { seq: 4, type: "tool_result", part: 3, call_id: "c", content: "high" },
    { seq: 5, type: "reasoning_delta", part: 0, text: "ing" },
  );

  expect(answer.parts.map(({ index }) => index)).toEqual([0, 1, 2, 3]);
  expect(text(answer)).toEqual(["thinking", "say", "tool_call", "tool_result"]);
});

test("`restarted` drops all content and may skip numbers", () => {
  const answer = after(
    delta(3, "lost"),
    { seq: 1_000_001, type: "restarted", attempt: 2 },
    delta(1_000_002, "kept"),
  );

  expect(answer).toMatchObject({ seq: 1_000_002, status: "running" });
  expect(text(answer)).toEqual(["kept"]);
});

test("`resumed` keeps everything", () => {
  const answer = after(delta(3, "one "), { seq: 4, type: "resumed", attempt: 2 }, delta(5, "two"));

  expect(text(answer)).toEqual(["one two"]);
});

test("a snapshot replaces all content, and deltas continue it", () => {
  const content = [
    { type: "reasoning", text: "hm" },
    { type: "text", text: "one " },
  ];
  const answer = after(
    delta(3, "old"),
    { seq: 9, type: "snapshot", status: "running", content, finish_reason: null, error: null },
    delta(10, "two", 1),
  );

  expect(answer.seq).toBe(10);
  expect(text(answer)).toEqual(["hm", "one two"]);
});

test("a snapshot of an answer without events applies, an older one does not", () => {
  const early = {
    seq: 0,
    type: "snapshot",
    status: "running",
    content: [],
    finish_reason: null,
    error: null,
  };

  expect(after(early)).toMatchObject({ seq: 0, status: "running" });
  expect(text(after(delta(3, "new"), { ...early, seq: 2 }))).toEqual(["new"]);
});

test("an unknown event only advances the number", () => {
  const answer = after(delta(3, "same"), { seq: 4, type: "citation", part: 0, url: "x" });

  expect(answer).toEqual({ ...after(delta(3, "same")), seq: 4 });
});

test("a failed answer has its error and keeps its text; a stopped one keeps it too", () => {
  const failed = after(delta(3, "half"), {
    seq: 4,
    type: "failed",
    code: "provider_timeout",
    message: "Silent for 120 s.",
    retryable: true,
  });
  const stopped = after(delta(3, "half"), { seq: 4, type: "cancelled" });

  expect(failed).toMatchObject({
    status: "failed",
    error: { code: "provider_timeout", message: "Silent for 120 s.", retryable: true },
  });
  expect(stopped.status).toBe("cancelled");
  expect([text(failed), text(stopped)]).toEqual([["half"], ["half"]]);
});
