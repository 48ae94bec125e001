// An answer: its parts, its status and its actions.
import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import { link } from "../conversation";
import { outbox, send } from "../sending";
import { active, type Answer, type Part } from "../state/answer";
import type { Message } from "../state/shapes";
import { Painter } from "../text/painter";
import { ActionButton, Siblings } from "./answer_foot";

export function AnswerView({
  message,
  answer,
  last,
}: {
  message: Message;
  answer: Answer;
  last: boolean;
}) {
  const { status, parts } = answer;
  const growing = active(status);
  const end = parts.at(-1)?.index;
  return (
    <section class="answer" aria-label="Answer" aria-busy={growing} data-message={message.id}>
      {parts.map(({ index, part }) => (
        <PartView key={index} part={part} growing={growing && index === end} />
      ))}
      {growing ? (
        <Growing waiting={parts.length === 0} status={status} />
      ) : (
        <Ended message={message} answer={answer} last={last} />
      )}
    </section>
  );
}

/**
 * The progress indicator under an answer being written; it has the height of the buttons that
 * replace it.
 */
function Growing({ waiting, status }: { waiting: boolean; status: Answer["status"] }) {
  const away = link.value === "lost";
  const said = away
    ? "Connection lost. The answer continues and will appear here."
    : waiting
      ? status === "queued"
        ? "Waiting…"
        : "Thinking…"
      : "";
  return (
    <div class={away ? "growing away" : "growing"}>
      <span class="tide" aria-hidden="true" />
      {said && <span class="quiet">{said}</span>}
    </div>
  );
}

const finishReasonTexts: Record<string, string> = {
  length: "The answer reached its length limit.",
  content_filter: "The provider's content filter ended the answer.",
};

function Ended({ message, answer, last }: { message: Message; answer: Answer; last: boolean }) {
  const { status, error, finishReason } = answer;
  const cutOff = status === "completed" && finishReason === "length";
  const busy = outbox.value.some(
    ({ pending }) => "messageId" in pending.asking && pending.asking.messageId === message.id,
  );
  const again = (kind: "regenerate" | "continue") => () =>
    busy || send({ kind, conversationId: message.conversation_id, messageId: message.id });
  const text = () =>
    answer.parts.map(({ part }) => (part.type === "text" ? part.text : "")).join("");
  const why = status === "completed" && finishReasonTexts[finishReason ?? ""];
  return (
    <>
      {(status === "failed" || error) && (
        <div class="failure">
          <p>
            <strong>
              {status === "failed" ? "The answer failed." : "Continuing the answer failed."}
            </strong>{" "}
            {error?.message}
          </p>
          {error && <code translate={false}>{error.code}</code>}
        </div>
      )}
      {status === "cancelled" && <p class="quiet ended">Stopped.</p>}
      {why && <p class="quiet ended">{why}</p>}
      {last && (status === "failed" || cutOff) && (
        <div class="buttons">
          <button type="button" class="button primary" disabled={busy} onClick={again("continue")}>
            {cutOff ? "Continue" : "Try again"}
          </button>
        </div>
      )}
      <footer>
        <Siblings message={message} what="answer" />
        <ActionButton icon="copy" label="Copy" copies={text} />
        <ActionButton icon="redo" label="Regenerate" onClick={again("regenerate")} />
        <About message={message} answer={answer} />
      </footer>
    </>
  );
}

/** The model and the token usage, on demand. */
function About({ message, answer }: { message: Message; answer: Answer }) {
  const open = useSignal(false);
  const usage = message.usage ?? answer.usage;
  const tokens = (count: number) => count.toLocaleString("en");
  const used =
    usage &&
    `${tokens(usage.input_tokens)} tokens in, ${tokens(usage.output_tokens)} out${usage.estimated ? ", estimated" : ""}`;
  return (
    <>
      <ActionButton
        icon="info"
        label="About this answer"
        onClick={() => (open.value = !open.value)}
      />
      {open.value && (
        <span class="about" role="status">
          {message.model}
          {used && ` · ${used}`}
        </span>
      )}
    </>
  );
}

function PartView({ part, growing }: { part: Part; growing: boolean }) {
  switch (part.type) {
    case "text":
      return <Prose text={part.text} growing={growing} />;
    case "reasoning":
      return (
        <Collapsible summary={growing ? "Reasoning…" : "Reasoning"}>
          <GrowingText text={part.text} />
        </Collapsible>
      );
    case "tool_call":
      return (
        <Collapsible summary={`Calls the tool ${part.name}`}>
          {preformatted(part.arguments)}
        </Collapsible>
      );
    case "tool_result":
      return (
        <Collapsible summary={part.is_error ? "Tool error" : "Tool result"}>
          {preformatted(part.content)}
        </Collapsible>
      );
    case "file":
      return <p class="quiet">File: {part.name}</p>;
    default:
      return <p class="quiet">This page cannot show this kind of content yet.</p>;
  }
}

function Prose({ text, growing }: { text: string; growing: boolean }) {
  const host = useRef<HTMLDivElement>(null);
  const painter = useRef<Painter | null>(null);
  useLayoutEffect(() => {
    painter.current = new Painter(host.current!);
    return () => painter.current?.end();
  }, []);
  useLayoutEffect(() => painter.current!.paint(text, growing), [text, growing]);
  return <div class="prose" ref={host} />;
}

/** Text that grows, also where the browser has replaced it by its translation. */
function GrowingText({ text }: { text: string }) {
  const host = useRef<HTMLParagraphElement>(null);
  useLayoutEffect(() => {
    const [old] = host.current!.childNodes;
    if (old instanceof Text && !old.nextSibling && text.startsWith(old.data))
      old.appendData(text.slice(old.length));
    else host.current!.textContent = text;
  }, [text]);
  return <p class="reasoning" dir="auto" ref={host} />;
}

const preformatted = (value: unknown) => (
  <pre tabIndex={0}>{typeof value === "string" ? value : JSON.stringify(value, null, 2)}</pre>
);

/** Collapsed at first; its content is not rendered before it is opened. */
function Collapsible({ summary, children }: { summary: string; children: ComponentChildren }) {
  const open = useSignal(false);
  return (
    <details class="folded" onToggle={(event) => (open.value = event.currentTarget.open)}>
      <summary>
        <span key={summary}>{summary}</span>
      </summary>
      {open.value && children}
    </details>
  );
}
