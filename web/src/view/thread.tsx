// The open conversation and its scroll position.
import { useSignal } from "@preact/signals";
import { useEffect, useLayoutEffect, useMemo, useRef } from "preact/hooks";
import { link, highlighted, readEarlier, tree } from "../conversation";
import { copy } from "../clipboard";
import { waiting } from "../sending";
import type { Message } from "../state/shapes";
import { answerOf, branch, earlier } from "../state/tree";
import { AnswerView } from "./answer";
import { Icon } from "./icon";
import { PendingView, Question } from "./question";
import { Welcome } from "./welcome";

const end_px = 48;
// how long after a touch, wheel or key event the reader may still be scrolling
const gesture_ms = 200;

export function Thread() {
  const scroller = useRef<HTMLElement>(null);
  const atEnd = useSignal(true);
  const now = tree.value;
  const shown = branch(now);
  const pending = waiting();
  const replaced = new Set(
    pending.map(({ pending: { asking } }) => ("messageId" in asking ? asking.messageId : "")),
  );
  const cut = shown.findIndex(({ id }) => replaced.has(id));
  const kept = cut < 0 ? shown : shown.slice(0, shown[cut]!.role === "user" ? cut : cut + 1);
  useStickToEnd(scroller, atEnd, now.id, pending.length, shown[0]?.id);
  useHighlight(scroller, atEnd);
  const empty = shown.length === 0 && pending.length === 0;
  return (
    <main class="thread" ref={scroller} tabIndex={-1} aria-busy={!now.opened} onClick={copyCode}>
      <div class="column">
        {earlier(now) && <Earlier scroller={scroller} key={earlier(now)} />}
        {empty && !now.id && <Welcome />}
        {empty && now.id && !now.opened && (
          <p class="opening">{link.value === "lost" ? "" : "Opening…"}</p>
        )}
        {kept.map((message, place) => (
          <MessageView key={message.id} message={message} last={place === shown.length - 1} />
        ))}
        {pending.map((sent) => (
          <PendingView key={sent.pending.key} sent={sent} />
        ))}
      </div>
      {!atEnd.value && (
        <button
          type="button"
          class="to-end"
          onClick={() => toEnd(scroller.current!)}
          aria-label="Scroll to bottom"
          title="Scroll to bottom"
        >
          <Icon name="down" />
        </button>
      )}
    </main>
  );
}

/** One message, rendered again only when it changed. */
function MessageView({ message, last }: { message: Message; last: boolean }) {
  const answer = answerOf(tree.value, message);
  return useMemo(
    () =>
      message.role === "user" ? (
        <Question message={message} />
      ) : (
        <AnswerView message={message} answer={answer} last={last} />
      ),
    [message, answer, last],
  );
}

const toEnd = (element: HTMLElement) => element.scrollTo({ top: element.scrollHeight });

/**
 * Stays at the end unless the reader scrolled up since sending; older messages inserted above do
 * not move the view.
 */
function useStickToEnd(
  scroller: { current: HTMLElement | null },
  atEnd: { value: boolean; peek(): boolean },
  id: string | null,
  sending: number,
  first: string | undefined,
): void {
  const fromEnd = useRef(0);
  const moved_at = useRef(-Infinity);
  const isScrolling = () => performance.now() - moved_at.current <= gesture_ms;
  /**
   * Scrolls to the end, but not during a gesture: the scroll event of the gesture arrives only with
   * the next frame.
   */
  const stickToEnd = () => {
    if (atEnd.peek() && !isScrolling()) toEnd(scroller.current!);
  };
  useLayoutEffect(() => {
    const element = scroller.current!;
    let height = 0;
    let later = 0;
    const watch = new ResizeObserver(() => {
      stickToEnd();
      height = element.scrollHeight;
    });
    const onGesture = () => {
      moved_at.current = performance.now();
      clearTimeout(later);
      later = window.setTimeout(stickToEnd, gesture_ms + 1);
    };
    watch.observe(element);
    watch.observe(element.firstElementChild!);
    const onScroll = () => {
      const moved = isScrolling();
      // without what was rendered since the last frame
      const seen = moved ? Math.min(height, element.scrollHeight) : element.scrollHeight;
      const left = seen - element.scrollTop - element.clientHeight;
      fromEnd.current = element.scrollHeight - element.scrollTop;
      if (moved || element.scrollHeight === height || left < end_px) atEnd.value = left < end_px;
    };
    const ended = new AbortController();
    const options = { passive: true, signal: ended.signal };
    element.addEventListener("scroll", onScroll, options);
    for (const name of ["wheel", "touchmove", "pointerdown", "keydown"])
      element.addEventListener(name, onGesture, options);
    return () => (clearTimeout(later), watch.disconnect(), ended.abort());
  }, []);
  const before = useRef({ id, sending });
  useLayoutEffect(() => {
    const elsewhere = before.current.id !== id;
    const sent = before.current.sending < sending;
    before.current = { id, sending };
    if (!elsewhere && !sent) return;
    atEnd.value = true;
    toEnd(scroller.current!);
  }, [id, sending]);
  useLayoutEffect(() => {
    const element = scroller.current!;
    if (!atEnd.peek()) element.scrollTop = element.scrollHeight - fromEnd.current;
  }, [first]);
  // otherwise new content would be below the visible part for one frame
  useLayoutEffect(stickToEnd);
}

/** Scrolls to the requested message and highlights it. */
function useHighlight(scroller: { current: HTMLElement | null }, atEnd: { value: boolean }): void {
  const id = highlighted.value;
  const there = id !== null && tree.value.messages.has(id);
  useEffect(() => {
    if (!id || !there) return;
    const place = scroller.current!.querySelector<HTMLElement>(`[data-message="${id}"]`);
    if (!place) return;
    atEnd.value = false;
    place.scrollIntoView({ block: "center" });
    place.classList.add("pointed-out");
    place.addEventListener("animationend", () => place.classList.remove("pointed-out"), {
      once: true,
    });
    highlighted.value = null;
  }, [id, there, tree.value]);
}

/** Loads older messages when the reader scrolls near them. */
function Earlier({ scroller }: { scroller: { current: HTMLElement | null } }) {
  const place = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    const watch = new IntersectionObserver(([seen]) => seen?.isIntersecting && void readEarlier(), {
      ...{ root: scroller.current, rootMargin: "600px 0px 0px" },
    });
    watch.observe(place.current!);
    return () => watch.disconnect();
  }, []);
  return (
    <button
      ref={place}
      type="button"
      class="text-button quiet earlier"
      onClick={() => readEarlier()}
    >
      Earlier messages
    </button>
  );
}

/** Copies a code block when its button is clicked. */
function copyCode(event: MouseEvent): void {
  const button = (event.target as Element).closest<HTMLElement>("figure.code button.copy");
  if (button) void copy(button.closest("figure")!.querySelector("code")!.textContent ?? "", button);
}
