// Following one answer's event stream until its end, across every kind of interruption.
import { createParser } from "eventsource-parser";
import { type StreamEvent, terminal } from "./answer";
import { failureFrom, Problem } from "./api";

const silence_max_ms = 40_000; // the server comments every 15 s: after this the link is dead
const delay_max_ms = 15_000;

export interface Follower {
  /** The number of the last event the reader has; 0 asks for a snapshot. */
  mark(): number;
  forget(): void;
  onEvent(event: StreamEvent): void;
  /** True while the stream flows, false from a lost link until the next byte. */
  onLink(up: boolean): void;
  signal: AbortSignal;
  wait?: (delay_ms: number, signal: AbortSignal) => Promise<void>;
}

/** Resolves once the answer is over (a terminal event, or 204) or `signal` is aborted; raises `Problem` when the server refuses. */
export async function follow(url: string, follower: Follower): Promise<void> {
  const { signal, wait = delayOrOnline } = follower;
  let retry_ms = 1000;
  for (let failures = 0; !signal.aborted; failures++) {
    try {
      const before = follower.mark();
      if (await readOnce(url, follower, (ms) => (retry_ms = ms))) return;
      if (follower.mark() > before) failures = 0;
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Problem && refused(error)) {
        if (error.code !== "invalid_cursor" || follower.mark() === 0) throw error;
        follower.forget();
      }
    }
    if (signal.aborted) return;
    follower.onLink(false);
    const delay_ms = Math.min(retry_ms * 2 ** failures, delay_max_ms);
    await wait(delay_ms * (0.5 + Math.random() / 2), signal);
  }
}

const refused = (error: Problem) =>
  error.status >= 400 && error.status < 500 && error.status !== 429 && error.status !== 408;

/** One connection: true when the answer is over, false when it was cut off. */
async function readOnce(url: string, follower: Follower, onRetry: (retry_ms: number) => void): Promise<boolean> {
  const dead = new AbortController();
  const mark = follower.mark();
  let watch = setTimeout(() => dead.abort(), silence_max_ms);
  try {
    const response = await fetch(mark ? url : `${url}?snapshot=1`, {
      headers: { accept: "text/event-stream", ...(mark ? { "last-event-id": String(mark) } : {}) },
      signal: AbortSignal.any([follower.signal, dead.signal]),
    });
    if (response.status === 204) return true;
    if (!response.ok || !response.body) throw await failureFrom(response);

    let over = false;
    const parser = createParser({
      onRetry,
      onEvent: ({ id, event, data }) => {
        const body: object = JSON.parse(data);
        const type = event ?? "message";
        follower.onEvent({ ...body, type, ...(id ? { seq: Number(id) } : {}) } as StreamEvent);
        over ||= terminal(type);
      },
    });
    const decoder = new TextDecoder();
    const reader = response.body.getReader();
    while (!over) {
      const { done, value } = await reader.read();
      if (done) return false;
      clearTimeout(watch);
      watch = setTimeout(() => dead.abort(), silence_max_ms);
      follower.onLink(true);
      parser.feed(decoder.decode(value, { stream: true }));
    }
    return true;
  } finally {
    clearTimeout(watch);
    dead.abort();
  }
}

/** Waits, but not longer than until the network is back or the page is looked at again. */
function delayOrOnline(delay_ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const stop = new AbortController();
    const end = () => (clearTimeout(timer), stop.abort(), resolve());
    const timer = setTimeout(end, delay_ms);
    addEventListener("online", end, { signal: stop.signal });
    document.addEventListener("visibilitychange", () => document.hidden || end(), { signal: stop.signal });
    signal.addEventListener("abort", end, { signal: stop.signal });
  });
}
