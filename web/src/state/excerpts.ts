// Marked excerpts: titles that contain what is searched for.
import type { Conversation } from "./shapes";

export interface TitleHit {
  conversation: { id: string; title: string };
  message: null;
  excerpt: { text: string; match: boolean }[];
}

/** Conversations whose title contains every word of `query`, with these marked. */
export function inTitles(conversations: Conversation[], query: string): TitleHit[] {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return [];
  return conversations
    .filter(({ title }) => words.every((word) => title.toLowerCase().includes(word)))
    .map(({ id, title }) => ({ conversation: { id, title }, message: null, excerpt: marked(title, words) }));
}

/** `text` in pieces, of which those that are one of `words` (in lower case) match. */
export function marked(text: string, words: string[]): { text: string; match: boolean }[] {
  const pattern = new RegExp(`(${words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|")})`, "gi");
  return text
    .split(pattern)
    .map((piece, place) => ({ text: piece, match: place % 2 === 1 }))
    .filter((piece) => piece.text);
}
