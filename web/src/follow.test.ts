// Following a stream that breaks: what is asked for again, and when it ends.
import { afterEach, expect, test, vi } from "vitest";
import { type Answer, answerFrom, applyEvent } from "./answer";
import { Problem } from "./api";
import { follow } from "./follow";

afterEach(() => vi.unstubAllGlobals());

const frame = (seq: number, event: string, data: object) =>
  `id: ${seq}\nevent: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
const delta = (seq: number, text: string) => frame(seq, "text_delta", { part: 0, text });
const done = (seq: number) => frame(seq, "completed", { finish_reason: "stop", usage: null });
const stream = (...frames: string[]) =>
  new Response(frames.join(""), { headers: { "content-type": "text/event-stream" } });
const problem = (status: number, code: string) => Response.json({ status, code, detail: code }, { status });
const unreachable = () => Promise.reject(new TypeError("network"));

/** Follows against these responses, one for each request; answers what was asked, waited and understood. */
async function followed(...responses: (Response | (() => Promise<Response>))[]) {
  const asked: string[] = [];
  const delays: number[] = [];
  const links: boolean[] = [];
  let answer: Answer = answerFrom({
    generation_id: "gen_1",
    status: "queued",
    content: [],
    finish_reason: null,
    error: null,
  });
  vi.stubGlobal("fetch", async (url: string, { headers }: { headers: Record<string, string> }) => {
    asked.push(headers["last-event-id"] ?? url);
    const response = responses.shift();
    return typeof response === "function" ? response() : response;
  });
  const ended = follow("/events", {
    mark: () => answer.seq,
    forget: () => (answer = { ...answer, seq: 0 }),
    onEvent: (event) => (answer = applyEvent(answer, event)),
    onLink: (up) => links.push(up),
    signal: new AbortController().signal,
    wait: async (delay_ms) => void delays.push(delay_ms),
  });
  const error = await ended.then(
    () => null,
    (reason) => reason,
  );
  return { answer, asked, delays, links, error };
}

test("it begins with a snapshot and ends with the terminal event", async () => {
  const { answer, asked, delays } = await followed(stream(": open\nretry: 1000\n\n", delta(3, "Hi"), done(4)));

  expect(asked).toEqual(["/events?snapshot=1"]);
  expect(delays).toEqual([]);
  expect(answer).toMatchObject({ seq: 4, status: "completed" });
});

test("a close without a terminal event means: come back from the last number", async () => {
  const { answer, asked, links } = await followed(
    stream(delta(3, "one ")),
    stream(delta(3, "one "), delta(4, "two"), done(5)),
  );

  expect(asked).toEqual(["/events?snapshot=1", "3"]);
  expect(answer.parts).toEqual([{ index: 0, part: { type: "text", text: "one two" } }]);
  expect(links).toEqual([true, false, true]);
});

test("204 means that it is over", async () => {
  const { asked, error } = await followed(stream(delta(3, "one")), new Response(null, { status: 204 }));

  expect(asked).toHaveLength(2);
  expect(error).toBeNull();
});

test("waits grow while the server is away, stay bounded, and start small again after an event", async () => {
  const away = Array.from({ length: 6 }, () => unreachable);
  const { delays } = await followed(
    ...away,
    problem(503, "unavailable"),
    stream("retry: 100\n\n", delta(3, "one")),
    stream(done(4)),
  );

  expect(delays).toHaveLength(8);
  delays.slice(0, 7).forEach((delay_ms, failures) => {
    const whole_ms = Math.min(1000 * 2 ** failures, 15_000);
    expect(delay_ms).toBeGreaterThanOrEqual(whole_ms / 2);
    expect(delay_ms).toBeLessThanOrEqual(whole_ms);
  });
  expect(delays[7]).toBeLessThanOrEqual(100);
});

test("a mark the server does not know leads to a snapshot", async () => {
  const { answer, asked } = await followed(
    stream(delta(3, "one")),
    problem(400, "invalid_cursor"),
    stream(delta(1, "1"), done(2)),
  );

  expect(asked).toEqual(["/events?snapshot=1", "3", "/events?snapshot=1"]);
  expect(answer.status).toBe("completed");
});

test("a refusal ends it", async () => {
  const { error, delays } = await followed(problem(404, "not_found"));

  expect(error).toBeInstanceOf(Problem);
  expect(delays).toEqual([]);
});
