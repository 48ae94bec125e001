// A question: sent, pending, or being edited.
import { useSignal } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";
import { isComposing } from "../composing";
import { openId, writing } from "../conversation";
import { returnToDraft, retry, send, type Sent } from "../sending";
import { textOf } from "../state/outbox";
import type { Message } from "../state/shapes";
import { ActionButton, Siblings } from "./answer_foot";

export function Question({ message }: { message: Message }) {
  const editing = useSignal(false);
  if (editing.value) return <Edit message={message} onDone={() => (editing.value = false)} />;
  return (
    <section class="question" aria-label="You" data-message={message.id}>
      <div class="bubble" dir="auto">
        {message.text}
      </div>
      <footer>
        <Siblings message={message} what="question" />
        <ActionButton icon="copy" label="Copy" copies={() => message.text} />
        <ActionButton icon="edit" label="Edit" onClick={() => (editing.value = true)} />
      </footer>
    </section>
  );
}

function Edit({ message, onDone }: { message: Message; onDone: () => void }) {
  const field = useRef<HTMLTextAreaElement>(null);
  useLayoutEffect(() => {
    const { length } = field.current!.value;
    field.current!.focus();
    field.current!.setSelectionRange(length, length);
  }, []);
  const ask = () => {
    const text = field.current!.value;
    const conversationId = openId.peek();
    if (!text.trim() || !conversationId || writing.peek()) return;
    send({
      kind: "edit",
      text,
      conversationId,
      messageId: message.id,
      parentId: message.parent_id,
    });
    onDone();
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (isComposing(event)) return;
    if (event.key === "Escape") (event.stopPropagation(), onDone());
    if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) (event.preventDefault(), ask());
  };
  return (
    <form class="question editing" onSubmit={(event) => (event.preventDefault(), ask())}>
      <textarea
        ref={field}
        aria-label="Question"
        dir="auto"
        defaultValue={message.text}
        rows={Math.min(12, message.text.split("\n").length + 1)}
        onKeyDown={onKeyDown}
      />
      <div class="buttons">
        <button type="button" class="button" onClick={onDone}>
          Cancel
        </button>
        <button type="submit" class="button primary" disabled={writing.value !== null}>
          Ask again
        </button>
      </div>
    </form>
  );
}

const progressTexts = {
  sending: "Sending…",
  waiting: "Not sent yet. It is kept in this browser and will be sent once.",
  refused: "",
};

export function PendingView({ sent: { pending, progress } }: { sent: Sent }) {
  const text = textOf(pending);
  if (text === null && progress.state === "sending") return null; // too early to show anything
  return (
    <section class={`question pending ${progress.state}`} aria-label="You, not sent yet">
      {text !== null && (
        <div class="bubble" dir="auto">
          {text}
        </div>
      )}
      <p class="quiet" role={progress.state === "refused" ? "alert" : "status"}>
        {progress.state === "waiting" && progress.reason
          ? progress.reason
          : progressTexts[progress.state]}
        {progress.state === "refused" && `Not sent: ${progress.reason}`}
      </p>
      {progress.state === "refused" && (
        <div class="buttons">
          <button type="button" class="button" onClick={() => returnToDraft(pending)}>
            {text === null ? "Dismiss" : "Edit"}
          </button>
          <button type="button" class="button primary" onClick={() => retry(pending)}>
            Try again
          </button>
        </div>
      )}
    </section>
  );
}
