// The part of a growing answer that a screen reader announces: whole sentences instead of tokens,
// and a bounded length.

const words_max_chars = 600;

/**
 * The sentences after offset `said`, without Markdown syntax, and the offset of their end; with
 * `over`, the rest counts as a sentence.
 */
export function sentencesAfter(
  text: string,
  said: number,
  over: boolean,
): { words: string; said: number } {
  const rest = text.slice(said);
  const ends = [...rest.matchAll(/[.!?…:](?=\s)|\n\n/g)].at(-1);
  const length = over ? rest.length : ends ? ends.index + ends[0].length : 0;
  const words = rest
    .slice(0, length)
    .replace(/```[\s\S]*?(?:```|$)/g, " (code) ")
    .replace(/[*_`#>|]+/g, " ")
    .replace(/\s+/g, " ")
    .trim();
  return {
    words: words.length > words_max_chars ? `${words.slice(0, words_max_chars)}…` : words,
    said: said + length,
  };
}
