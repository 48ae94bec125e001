// A growing text is cut the same way however it arrives, and what is frozen never changes.
import { expect, test } from "vitest";
import { type Block, grow, type Growth, nothing } from "./blocks";

const whole = (text: string) => grow(nothing, text, true).frozen;

/** The blocks of a text that arrived in steps of so many characters; what was frozen must stay. */
function stepwise(text: string, step: number): readonly Block[] {
  let growth: Growth = nothing;
  for (let end = step; end < text.length; end += step) {
    const before = growth.frozen;
    growth = grow(growth, text.slice(0, end), false);
    expect(growth.frozen.slice(0, before.length)).toEqual(before);
  }
  return grow(growth, text, true).frozen;
}

const words = (count: number) => Array.from({ length: count }, (_, n) => `word${n % 97}`).join(" ");

const texts: Record<string, string> = {
  "paragraphs and a heading": "One.\n\n## Two\n\nThree\nfour.\n\nFive.",
  "a list that goes on after a blank line": "- a\n\n- b\n\n  more of b\n\n- c\n\nThen this.",
  "an ordered list, then text": "1. a\n2. b\n\n3. c\n\nText\n",
  "fenced code with blank lines and other fences":
    "Look:\n\n```python\na = 1\n\n~~~\n\nb = 2\n```\n\nDone.\n",
  "a fence in a paragraph": "Look:\n```js\nx\n```\nafter\n",
  "a table, then text": "| a | b |\n|---|--:|\n| 1 | 2 |\n| 3 | 4 |\n\nText.",
  "an unclosed fence": "So:\n\n```\nnever\n\nends\n",
  "a displayed formula with blank lines": "So\n\n$$\na\n\n= b\n$$\n\nand on.",
  "a very long paragraph": words(4000),
  "a very long list": Array.from({ length: 900 }, (_, n) => `${n + 1}. ${words(4)}`).join("\n"),
  "a very long table": `| a | b |\n|---|---|\n${Array.from({ length: 900 }, (_, n) => `| ${n} | ${words(3)} |`).join("\n")}\n\nEnd.`,
  "very long code": `\`\`\`\n${Array.from({ length: 3000 }, (_, n) => `line ${n}`).join("\n")}\n\`\`\`\nafter`,
  "a line without spaces": "x".repeat(20_000),
  "line ends of another system": "a\r\n\r\nb\r\n\r\n```\r\nc\r\n```\r\n",
};

for (const [name, text] of Object.entries(texts))
  test(`${name}: the same blocks, whatever the steps`, () => {
    const blocks = whole(text);

    for (const step of text.length < 2000 ? [1, 7, 64] : [331, 30_000])
      expect(stepwise(text, step)).toEqual(blocks);
    expect(blocks.length).toBeGreaterThan(0);
  });

test("cutting a long paragraph loses no text", () => {
  const text = words(4000);

  expect(
    whole(text)
      .map((block) => block.text)
      .join(""),
  ).toBe(text);
  for (const block of whole(text)) expect(block.text.length).toBeLessThanOrEqual(3072);
});

test("code keeps every character, and its language", () => {
  const [first] = whole("```Python title=x\n  a\n\n\tb\n```\n");

  expect(first).toEqual({ kind: "code", text: "  a\n\n\tb", lang: "python", joined: false });
});

test("while a fence is open, its code is the tail, without a possible closing fence", () => {
  const { frozen, tail } = grow(nothing, "Text\n\n```js\na\nb", false);

  expect(frozen).toHaveLength(1);
  expect(tail).toMatchObject({ kind: "code", text: "a\nb", lang: "js" });
});

test("a cut does not split a character", () => {
  const text = "x".repeat(2559) + "👩‍👩‍👧".repeat(3000);

  for (const block of whole(text))
    expect(block.text).not.toMatch(/^[\udc00-\udfff\u200d]|[\ud800-\udbff]$/);
});

test("a table that was cut continues with its head", () => {
  const blocks = whole(texts["a very long table"]!);
  const tables = blocks.filter(({ text }) => text.startsWith("| a | b |"));

  expect(tables.length).toBeGreaterThan(1);
  expect(tables.slice(1).every(({ joined }) => joined)).toBe(true);
  expect(
    tables
      .map(({ text }) => text.split("\n").slice(2).join("\n"))
      .join("")
      .match(/\| \d+ \|/g),
  ).toHaveLength(900);
});

test("a different text starts over", () => {
  const before = grow(nothing, "Old.\n\nText.\n\n", false);

  expect(grow(before, "New.", true).frozen.map(({ text }) => text)).toEqual(["New."]);
});

test("a definition counts once its line is complete", () => {
  const text = "See [1].\n\n[1]: https://example.org/a";
  const growing = grow(nothing, text.slice(0, -1), false);
  const complete = grow(growing, `${text}\n`, false);

  expect(growing.links).toEqual({});
  expect(complete.links["1"]?.href).toBe("https://example.org/a");
  expect(grow(complete, `${text}\n[1]: https://example.org/b\n`, true).links).toBe(complete.links);
  expect(grow(nothing, text, true).links["1"]?.href).toBe("https://example.org/a");
});
