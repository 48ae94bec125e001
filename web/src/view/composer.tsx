// The message field, with the Send or Stop button.
import { useComputed, useSignal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { isComposing } from "../composing";
import { openId, stop, tree, writing } from "../conversation";
import { draft, write } from "../drafts";
import { modelHere, systemPromptHere } from "../models";
import { sendDraft, waiting } from "../sending";
import { settings } from "../settings";
import { Icon } from "./icon";
import { ModelPicker } from "./model_picker";

const coarse = () => matchMedia("(pointer: coarse)").matches;

export function Composer() {
  const field = useRef<HTMLTextAreaElement>(null);
  const stopping = useSignal<string | null>(null);
  const answer = writing.value;
  const ready = useComputed(isReady);
  useEffect(() => {
    if (!coarse()) field.current?.focus();
  }, [openId.value]);
  useLayoutEffect(() => fit(field.current!), [draft.value]);
  const submit = () =>
    isReady() && sendDraft({ model: modelHere.peek(), systemPrompt: systemPromptHere.peek() });
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key !== "Enter" || isComposing(event) || event.shiftKey) return;
    const asked = event.ctrlKey || event.metaKey || (settings.value.enterSends && !coarse());
    if (!asked) return;
    event.preventDefault();
    submit();
  };
  const end = async () => {
    stopping.value = answer?.generation_id ?? null;
    await stop();
    stopping.value = null;
  };
  return (
    <form class="composer" onSubmit={(event) => (event.preventDefault(), submit())}>
      <label class="unseen" for="message">
        Message
      </label>
      <textarea
        id="message"
        dir="auto"
        ref={field}
        rows={1}
        placeholder="Ask anything"
        value={draft.value}
        onInput={(event) => write(event.currentTarget.value)}
        onKeyDown={onKeyDown}
      />
      <div class="composer-foot">
        <ModelPicker />
        {answer ? (
          <button
            type="button"
            class="round"
            aria-label="Stop"
            title="Stop (Esc)"
            onClick={end}
            disabled={stopping.value !== null && stopping.value === answer.generation_id}
          >
            <Icon name="stop" />
          </button>
        ) : (
          <button
            type="submit"
            class="round"
            aria-label="Send"
            title="Send"
            disabled={!ready.value}
          >
            <Icon name="up" />
          </button>
        )}
      </div>
    </form>
  );
}

/**
 * Whether the draft can be sent: no answer is being written, no message is pending here, and the
 * parent is known.
 */
function isReady(): boolean {
  const here = tree.value;
  const held = waiting().some(({ pending }) => "text" in pending.asking);
  return (
    draft.value.trim() !== "" && !writing.value && !held && (here.opened || here.messages.size > 0)
  );
}

const field_max_share = 0.4;
const measured_max_chars = 20_000;

/**
 * Makes the field as high as its text, up to a share of the window. A long text gets the maximum
 * without being measured.
 */
function fit(field: HTMLTextAreaElement): void {
  const most = innerHeight * field_max_share;
  if (field.value.length > measured_max_chars) {
    field.style.height = `${most}px`;
    return;
  }
  field.style.height = "auto";
  field.style.height = `${Math.min(field.scrollHeight, most)}px`;
}
