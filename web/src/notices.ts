// Short notices over the page, and announcements for screen readers.
import { signal } from "@preact/signals";

export interface Notice {
  id: number;
  text: string;
  /** A button, for example "Undo". */
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

export const dismiss = (id: number): void =>
  void (notices.value = notices.value.filter((each) => each.id !== id));

export const announce = (text: string): void => void (announcement.value = text);
