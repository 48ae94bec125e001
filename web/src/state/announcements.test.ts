// Announcements of a growing answer, and matches marked in search results.
import { expect, test } from "vitest";
import { sentencesAfter } from "./announcements";
import { inTitles, marked } from "./excerpts";
import type { Conversation } from "./shapes";

test("whole sentences are announced once each, and the rest at the end", () => {
  const text = "One **two**. Three four! Fi";
  const first = sentencesAfter(text, 0, false);

  expect(first).toEqual({ words: "One two . Three four!", said: 24 });
  expect(sentencesAfter(text, first.said, false).words).toBe("");
  expect(sentencesAfter(text, first.said, true).words).toBe("Fi");
});

test("code is not announced, and the length is bounded", () => {
  expect(sentencesAfter("See:\n```js\nlet a;\n```\nDone. ", 0, true).words).toBe(
    "See: (code) Done.",
  );
  expect(sentencesAfter("word ".repeat(1000), 0, true).words.length).toBeLessThan(700);
});

test("titles with all the words are found, and the words marked", () => {
  const titles = ["High tide at Dover", "tide", "Dover"].map(
    (title) => ({ id: title, title }) as Conversation,
  );

  expect(inTitles(titles, "dover TIDE").map(({ conversation }) => conversation.id)).toEqual([
    "High tide at Dover",
  ]);
  expect(inTitles(titles, " ")).toEqual([]);
  expect(marked("a+b or A+B", ["a+b"])).toEqual([
    { text: "a+b", match: true },
    { text: " or ", match: false },
    { text: "A+B", match: true },
  ]);
});
