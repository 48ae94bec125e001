// The place to write, with Send or Stop beside it.
import { useSignal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import * as page from "./page";
import type { Shown } from "./page";

export function Composer() {
  const text = useSignal("");
  const sending = useSignal(false);
  const stopping = useSignal<Shown | null>(null);
  const field = useRef<HTMLTextAreaElement>(null);
  const writing = page.writing.value;
  const openId = page.openId.value;
  useEffect(() => {
    if (!matchMedia("(pointer: coarse)").matches) field.current?.focus();
  }, [openId]);
  useLayoutEffect(() => {
    const element = field.current!;
    element.style.height = "auto";
    element.style.height = `${element.scrollHeight + 2}px`;
  }, [text.value]);
  const submit = async () => {
    if (!text.value.trim() || sending.value || writing) return;
    sending.value = true;
    if (await page.send(text.value)) text.value = "";
    sending.value = false;
  };
  const stop = async () => {
    stopping.value = writing;
    if (writing) await page.stop(writing);
    stopping.value = null;
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || matchMedia("(pointer: coarse)").matches) return;
    event.preventDefault();
    void submit();
  };
  return (
    <form class="composer" onSubmit={(event) => (event.preventDefault(), void submit())}>
      <label class="unseen" for="message">
        Message
      </label>
      <textarea
        id="message"
        ref={field}
        rows={1}
        placeholder="Message"
        value={text.value}
        readOnly={sending.value}
        onInput={(event) => (text.value = event.currentTarget.value)}
        onKeyDown={onKeyDown}
      />
      {writing ? (
        <button type="button" onClick={stop} disabled={stopping.value === writing}>
          {stopping.value === writing ? "Stopping" : "Stop"}
        </button>
      ) : (
        <button type="submit" disabled={sending.value || !text.value.trim()}>
          Send
        </button>
      )}
    </form>
  );
}
