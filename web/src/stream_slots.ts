// Whose turn it is to have a stream open: a browser keeps six connections to a server, and messages need some of them.
//
// Streams of all tabs share a few places. A hidden tab leaves its place as soon as another tab wants one, the tab a person is in never
// leaves it for tabs nobody is in, and otherwise a place goes round: a stream is resumed by its cursor, so nothing is lost by that.

const slots = 4;
const turn_ms = 1500;
const ask_first_ms = 30;
const ask_again_ms = 400;
const hidden_max_ms = 30_000;
const hidden_max_without_locks_ms = 2000;

const hasFocus = () => !document.hidden && document.hasFocus();

/** Runs `work` while this tab has a place; the signal it is given says when to leave. Waits for a place as long as that takes. */
export async function withSlot(signal: AbortSignal, work: (leave: AbortSignal) => Promise<void>): Promise<void> {
  const release = navigator.locks ? await take(signal) : () => {};
  if (!release) return;
  const done = new AbortController();
  const leaves = navigator.locks
    ? [whenWanted(done.signal), whenHidden(hidden_max_ms, done.signal)]
    : [whenHidden(hidden_max_without_locks_ms, done.signal)];
  try {
    await work(AbortSignal.any([signal, ...leaves]));
  } finally {
    done.abort();
    release();
  }
}

/** Waits until this tab is looked at. */
export function untilSeen(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (!document.hidden || signal.aborted) return resolve();
    const stop = new AbortController();
    const end = () => (stop.abort(), resolve());
    document.addEventListener("visibilitychange", () => document.hidden || end(), { signal: stop.signal });
    signal.addEventListener("abort", end, { signal: stop.signal });
  });
}

/** A place, as what gives it back; null when it is no longer wanted. */
async function take(signal: AbortSignal): Promise<(() => void) | null> {
  const channel = new BroadcastChannel("tidemark-slots");
  const ask = () => document.hidden || channel.postMessage(hasFocus() ? "please" : "when you can");
  const asking = [setInterval(ask, ask_again_ms), setTimeout(ask, ask_first_ms)];
  const enough = new AbortController();
  const stop = AbortSignal.any([signal, enough.signal]);
  try {
    return await new Promise((resolve) => {
      signal.addEventListener("abort", () => resolve(null), { once: true });
      let taken = false;
      for (let n = 0; n < slots; n++) {
        const held = () => {
          if (taken || signal.aborted) return;
          taken = true;
          setTimeout(() => enough.abort());
          return new Promise<void>((release) => resolve(release));
        };
        navigator.locks.request(`tidemark-slot-${n}`, { signal: stop }, held).catch(() => {});
      }
    });
  } finally {
    asking.forEach(clearInterval); // timeouts and intervals are of one list
    channel.close();
  }
}

/** Aborts when another tab wants this one's place and should have it. */
function whenWanted(until: AbortSignal): AbortSignal {
  const leave = new AbortController();
  const channel = new BroadcastChannel("tidemark-slots");
  const since = performance.now();
  until.addEventListener("abort", () => channel.close());
  channel.onmessage = ({ data }) => {
    const held_ms = performance.now() - since;
    const pressing = data === "please";
    const yields = document.hidden || (held_ms > turn_ms ? pressing || !hasFocus() : pressing && !hasFocus());
    if (yields) setTimeout(() => leave.abort(), Math.random() * 50);
  };
  return leave.signal;
}

/** Aborts once this tab was hidden for so long. */
function whenHidden(max_ms: number, until: AbortSignal): AbortSignal {
  const leave = new AbortController();
  let timer = 0;
  const look = () => {
    clearTimeout(timer);
    if (document.hidden) timer = window.setTimeout(() => leave.abort(), max_ms);
  };
  document.addEventListener("visibilitychange", look, { signal: until });
  until.addEventListener("abort", () => clearTimeout(timer));
  look();
  return leave.signal;
}
