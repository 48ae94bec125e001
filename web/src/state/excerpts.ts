// Excerpts with marked matches: conversations whose title contains the query.
import type { Conversation } from "./shapes";

export interface TitleHit {
  conversation: { id: string; title: string };
  message: null;
  excerpt: { text: string; match: boolean }[];
}

/** The conversations whose title contains every word of `query`, with these words marked. */
export function inTitles(conversations: Conversation[], query: string): TitleHit[] {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return [];
  return conversations
    .filter(({ title }) => words.every((word) => title.toLowerCase().includes(word)))
    .map(({ id, title }) => ({
      conversation: { id, title },
      message: null,
      excerpt: marked(title, words),
    }));
}

/** Splits `text` at the occurrences of `words` (in lower case), which match. */
export function marked(text: string, words: string[]): { text: string; match: boolean }[] {
  const pattern = new RegExp(
    `(${words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|")})`,
    "gi",
  );
  return text
    .split(pattern)
    .map((piece, place) => ({ text: piece, match: place % 2 === 1 }))
    .filter((piece) => piece.text);
}
