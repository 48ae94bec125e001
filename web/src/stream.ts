// The event stream of this tab, reconnected after every kind of interruption while the page is
// open.
import { createParser } from "eventsource-parser";
import { failureFrom, Problem } from "./api";
import { untilSeen, withSlot } from "./stream_slots";
import type { PageEvent } from "./state/shapes";
import { at } from "./root";

// the server sends a heartbeat every 15 s: after this silence the connection is dead
const silence_max_ms = 40_000;
// the limit where the machine may have slept: the tab became visible or the network came back
const asleep_ms = 20_000;
// a stream begins with a comment at once, and a heartbeat follows after 2 s: without two pieces that
// arrive apart from each other in this time, something on the way holds the bytes back
const mute_max_ms = 6000;
const apart_ms = 1000;
// while streams are held back: how long a response may take, the pause before the next request (some
// boxes answer at once themselves), and the time until a stream is tried again
const poll_wait_s = 10;
const poll_pause_ms = 200;
const polling_ms = 300_000;
const delay_first_ms = 300;
const delay_max_ms = 15_000;

export type Link = "connecting" | "live" | "polling" | "lost" | "resting";

export interface Follower {
  conversationId: string | null;
  /** The cursor of the last event received; null if there is none. */
  cursor(): string | null;
  onEvents(events: PageEvent[], cursor: string): void;
  /** The server rejected the cursor: the stream starts over without one. */
  forget(): void;
  onLink(link: Link): void;
  signal: AbortSignal;
}

// until when streams are assumed to be held back, for all conversations of this tab
let polling_until = 0;
addEventListener("online", () => (polling_until = 0));

/** Follows until `signal` is aborted; throws `Problem` for errors that retrying cannot fix. */
export async function followPage(follower: Follower): Promise<void> {
  const { signal, onLink } = follower;
  for (let failures = 0; !signal.aborted;) {
    const before = follower.cursor();
    try {
      await withSlot(signal, (leave) => readUntil(leave, follower));
      failures = 0;
      if (document.hidden && !signal.aborted) onLink("resting");
      await untilSeen(signal);
      continue; // the slot was released, or the tab was hidden
    } catch (error) {
      if (signal.aborted) return;
      if (error === mute) {
        // The same question, with an answer that ends, shows whether only streams are held back.
        polling_until = Date.now() + polling_ms;
        continue;
      }
      if (!(error instanceof Problem && error.status)) polling_until = 0; // the server is away
      if (error instanceof Problem && refused(error)) {
        if (error.code !== "invalid_cursor" || before === null) throw error;
        follower.forget();
      }
    }
    if (follower.cursor() !== before) failures = 0;
    onLink("lost");
    const delay_ms = Math.min(delay_first_ms * 2 ** failures++, delay_max_ms);
    await waitOrOnline(delay_ms * (0.5 + Math.random()), signal);
  }
}

/** The error of a stream that does not arrive as it is sent. */
const mute = new Error();

const refused = (error: Problem) =>
  error.status >= 400 && error.status < 500 && error.status !== 429 && error.status !== 408;

/**
 * One connection, until `leave` aborts; throws if the connection is lost before. While polling, until
 * the response ends.
 */
async function readUntil(leave: AbortSignal, follower: Follower): Promise<void> {
  const { conversationId, onEvents, onLink } = follower;
  const polling = Date.now() < polling_until;
  const watched = watchSilence();
  const signal = AbortSignal.any([leave, watched.dead]);
  let begun_at = 0;
  let flows = polling;
  const timer = setTimeout(() => flows || watched.end(), mute_max_ms);
  try {
    const cursor = follower.cursor();
    const query = new URLSearchParams({
      ...(conversationId ? { conversation_id: conversationId } : {}),
      ...(polling ? { wait_s: String(poll_wait_s) } : {}),
    });
    const headers = { accept: "text/event-stream", ...(cursor ? { "last-event-id": cursor } : {}) };
    const response = await fetch(at(`/api/events?${query}`), {
      headers,
      cache: "no-store",
      signal,
    });
    if (!response.ok || !response.body) throw await failureFrom(response);
    let events: PageEvent[] = [];
    let last = "";
    const parser = createParser({
      onEvent: ({ id, event, data }) => {
        events.push({ ...JSON.parse(data), type: event });
        last = id ?? last;
      },
    });
    const decoder = new TextDecoder();
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done && polling) return waitOrOnline(poll_pause_ms, signal);
      if (done) throw new Problem(0, "ended", "The stream ended.");
      begun_at ||= Date.now();
      flows ||= Date.now() - begun_at >= apart_ms;
      watched.received();
      onLink(polling ? "polling" : "live");
      parser.feed(decoder.decode(value, { stream: true }));
      if (events.length && !signal.aborted) onEvents(events, last);
      events = [];
    }
  } catch (error) {
    if (leave.aborted) return;
    throw !flows && watched.dead.aborted && navigator.onLine ? mute : error;
  } finally {
    clearTimeout(timer);
    watched.end();
  }
}

/**
 * Detects a dead connection: by long silence, or by a shorter one where the machine may have slept.
 */
function watchSilence() {
  const dead = new AbortController();
  const ended = new AbortController();
  let received_at = Date.now(); // unlike performance.now(), this continues while the machine sleeps
  const look = (max_ms: number) => () => Date.now() - received_at > max_ms && dead.abort();
  const timer = setInterval(look(silence_max_ms), 5000);
  const awake = look(asleep_ms);
  document.addEventListener("visibilitychange", () => document.hidden || awake(), {
    signal: ended.signal,
  });
  addEventListener("online", awake, { signal: ended.signal });
  addEventListener("offline", () => dead.abort(), { signal: ended.signal });
  return {
    dead: dead.signal,
    received: () => void (received_at = Date.now()),
    end: () => (clearInterval(timer), ended.abort(), dead.abort()),
  };
}

/** Waits; returns early when the network is back or the tab becomes visible. */
export function waitOrOnline(delay_ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const stop = new AbortController();
    const end = () => (clearTimeout(timer), stop.abort(), resolve());
    const timer = setTimeout(end, delay_ms);
    addEventListener("online", end, { signal: stop.signal });
    document.addEventListener("visibilitychange", () => document.hidden || end(), {
      signal: stop.signal,
    });
    signal.addEventListener("abort", end, { signal: stop.signal });
  });
}
