// Overlays: the list on a phone, and one dialog at a time.
import { signal } from "@preact/signals";

export const listOpen = signal(false);
export const dialog = signal<"settings" | "shortcuts" | "conversation" | null>(null);
