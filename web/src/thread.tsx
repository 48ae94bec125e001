// The open conversation: questions, answers being written or done, and what can be done with them.
import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import { active, type Part } from "./answer";
import { Markdown } from "./markdown";
import * as page from "./page";
import type { Shown } from "./page";

export function Thread() {
  const scroller = useRef<HTMLElement>(null);
  const atEnd = useSignal(true);
  const toEnd = () => scroller.current?.scrollTo({ top: scroller.current.scrollHeight });
  const shown = page.messages.value;
  useLayoutEffect(() => {
    const element = scroller.current!;
    const watch = new ResizeObserver(() => atEnd.peek() && toEnd());
    watch.observe(element);
    watch.observe(element.firstElementChild!);
    return () => watch.disconnect();
  }, []);
  const [first, last] = [shown[0]?.message.id, shown.at(-1)?.message.id];
  const wasFromEnd = useRef<number | null>(null);
  useLayoutEffect(() => {
    atEnd.value = true; // another conversation, or a message was sent
    toEnd();
  }, [last]);
  useLayoutEffect(() => {
    const element = scroller.current!;
    if (wasFromEnd.current !== null) element.scrollTop = element.scrollHeight - wasFromEnd.current;
    wasFromEnd.current = null;
  }, [first]);
  const showEarlier = () => {
    wasFromEnd.current = scroller.current!.scrollHeight - scroller.current!.scrollTop;
    return page.showEarlier();
  };
  const onScroll = () => {
    const { scrollHeight, scrollTop, clientHeight } = scroller.current!;
    atEnd.value = scrollHeight - scrollTop - clientHeight < 60;
  };
  return (
    <main class="thread" ref={scroller} onScroll={onScroll} aria-busy={page.opening.value}>
      <div class="column">
        {page.earlier.value && <Act onClick={showEarlier}>Earlier messages</Act>}
        {shown.length === 0 && !page.opening.value && !page.openId.value && (
          <p class="welcome">Ask something. Close the page while it answers, if you like; the answer will be here.</p>
        )}
        {page.opening.value && <p class="quiet">Opening…</p>}
        {shown.map((each, place) =>
          each.message.role === "user" ? (
            <section class="question" key={each.message.id} aria-label="You">
              {each.message.text}
            </section>
          ) : (
            <AnswerView key={each.message.id} shown={each} last={place === shown.length - 1} />
          ),
        )}
      </div>
      {!atEnd.value && (
        <button type="button" class="to-end" onClick={toEnd}>
          Latest ↓
        </button>
      )}
    </main>
  );
}

function AnswerView({ shown, last }: { shown: Shown; last: boolean }) {
  const { status, parts, error, finishReason } = shown.answer.value;
  const growing = active(status);
  const away = growing && !shown.linked.value;
  const cutOff = status === "completed" && finishReason === "length";
  return (
    <section class="answer" aria-label="Answer" aria-busy={growing}>
      {parts.map(({ index, part }) => (
        <PartView key={index} part={part} growing={growing && index === parts.at(-1)?.index} />
      ))}
      {growing && <div class={away ? "tide away" : "tide"} aria-hidden="true" />}
      {away && <p class="quiet">Connection lost. Reconnecting… nothing is lost, the answer goes on without you.</p>}
      {growing && !away && parts.length === 0 && (
        <p class="quiet">{status === "queued" ? "Waiting for a free worker…" : "Thinking…"}</p>
      )}
      {status === "cancelled" && <p class="quiet">Stopped.</p>}
      {cutOff && <p class="quiet">The answer reached its length limit.</p>}
      {status === "completed" && finishReason === "content_filter" && (
        <p class="quiet">The provider's content filter ended the answer.</p>
      )}
      {status === "failed" && (
        <div class="failure">
          <strong>The answer failed.</strong> {error?.message} {error && <code>{error.code}</code>}
        </div>
      )}
      {!growing && (
        <footer>
          {last && status === "failed" && <Act onClick={() => page.again(shown, "continue")}>Try again</Act>}
          {last && cutOff && <Act onClick={() => page.again(shown, "continue")}>Continue</Act>}
          {last && status !== "failed" && <Act onClick={() => page.again(shown, "regenerate")}>Regenerate</Act>}
          <Siblings shown={shown} />
          {last && <span class="quiet">{shown.message.model}</span>}
        </footer>
      )}
    </section>
  );
}

/** A button that can be pressed once until its work is done. */
function Act({ onClick, children }: { onClick: () => Promise<void>; children: ComponentChildren }) {
  const busy = useSignal(false);
  const act = async () => {
    busy.value = true;
    await onClick();
    busy.value = false;
  };
  return (
    <button type="button" class="plain" disabled={busy.value} onClick={act}>
      {children}
    </button>
  );
}

function Siblings({ shown }: { shown: Shown }) {
  const ids = shown.message.siblings;
  const place = ids.indexOf(shown.message.id);
  if (ids.length < 2 || place < 0) return null;
  const step = (to: number, label: string, sign: string) => (
    <button
      type="button"
      class="plain"
      aria-label={label}
      disabled={!ids[to]}
      onClick={() => ids[to] && page.showSibling(ids[to])}
    >
      {sign}
    </button>
  );
  return (
    <span class="siblings">
      {step(place - 1, "Previous answer", "‹")}
      {place + 1} of {ids.length}
      {step(place + 1, "Next answer", "›")}
    </span>
  );
}

function PartView({ part, growing }: { part: Part; growing: boolean }) {
  switch (part.type) {
    case "text":
      return <Markdown text={part.text} growing={growing} />;
    case "reasoning":
      return (
        <Aside summary={growing ? "Reasoning…" : "Reasoning"}>
          <p class="reasoning">{part.text}</p>
        </Aside>
      );
    case "tool_call":
      return <Aside summary={`Asks for the tool ${part.name}`}>{written(part.arguments)}</Aside>;
    case "tool_result":
      return <Aside summary={part.is_error ? "The tool failed" : "The tool's result"}>{written(part.content)}</Aside>;
    case "file":
      return <p class="quiet">File: {part.name}</p>;
    default:
      return <p class="quiet">A kind of content this page cannot show yet.</p>;
  }
}

const written = (value: unknown) => (
  <pre tabIndex={0}>{typeof value === "string" ? value : JSON.stringify(value, null, 2)}</pre>
);

function Aside({ summary, children }: { summary: string; children: ComponentChildren }) {
  return (
    <details>
      <summary>{summary}</summary>
      {children}
    </details>
  );
}
