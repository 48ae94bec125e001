// Short notices over the page, and what a screen reader is told.
import { signal } from "@preact/signals";

export interface Notice {
  id: number;
  text: string;
  /** What can be done about it. */
  act?: { label: string; do: () => void };
}

export const notices = signal<Notice[]>([]);
export const announcement = signal("");

const shown_ms = 8000;
let count = 0;

export function notify(text: string, act?: Notice["act"]): void {
  const id = ++count;
  const others = notices.value.filter((each) => each.text !== text).slice(-2);
  notices.value = [...others, { id, text, ...(act ? { act } : {}) }];
  setTimeout(() => dismiss(id), shown_ms);
}

export const dismiss = (id: number): void => void (notices.value = notices.value.filter((each) => each.id !== id));

export const announce = (text: string): void => void (announcement.value = text);
