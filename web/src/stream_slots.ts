// Limits the open streams of all tabs: a browser opens at most six connections to a server, and
// requests need some of them.
//
// All tabs share a few slots. A hidden tab releases its slot as soon as another tab requests one,
// the focused tab never releases its slot to unfocused tabs, and otherwise slots rotate. A stream
// resumes by its cursor, so nothing is lost.

const slots = 4;
const turn_ms = 1500;
const ask_first_ms = 30;
const ask_again_ms = 400;
const hidden_max_ms = 30_000;
const hidden_max_without_locks_ms = 2000;

const hasFocus = () => !document.hidden && document.hasFocus();

/** Waits for a slot, then runs `work`, whose signal aborts when the slot has to be released. */
export async function withSlot(
  signal: AbortSignal,
  work: (leave: AbortSignal) => Promise<void>,
): Promise<void> {
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

/** Waits until this tab is visible. */
export function untilSeen(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (!document.hidden || signal.aborted) return resolve();
    const stop = new AbortController();
    const end = () => (stop.abort(), resolve());
    document.addEventListener("visibilitychange", () => document.hidden || end(), {
      signal: stop.signal,
    });
    signal.addEventListener("abort", end, { signal: stop.signal });
  });
}

/** Acquires a slot and returns the function that releases it; null if `signal` aborted first. */
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
    asking.forEach(clearInterval); // clearInterval clears timeouts too
    channel.close();
  }
}

/** Aborts when another tab requests a slot and this tab should yield. */
function whenWanted(until: AbortSignal): AbortSignal {
  const leave = new AbortController();
  const channel = new BroadcastChannel("tidemark-slots");
  const since = performance.now();
  until.addEventListener("abort", () => channel.close());
  channel.onmessage = ({ data }) => {
    const held_ms = performance.now() - since;
    const pressing = data === "please";
    const yields =
      document.hidden || (held_ms > turn_ms ? pressing || !hasFocus() : pressing && !hasFocus());
    if (yields) setTimeout(() => leave.abort(), Math.random() * 50);
  };
  return leave.signal;
}

/** Aborts once this tab has been hidden for `max_ms`. */
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
