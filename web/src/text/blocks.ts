// Splits a growing Markdown text into blocks. Blocks that can no longer change are frozen; only
// what follows is parsed again.
import { Lexer, type Token, type Tokens } from "marked";
import { marked, mathOpening } from "./marked";

export interface Block {
  kind: "markdown" | "code";
  /** Markdown, or the code without its fence. */
  text: string;
  lang: string;
  /**
   * Continues the previous block, which was cut because it was too long to be parsed again and
   * again.
   */
  joined: boolean;
}

export type Links = Lexer["tokens"]["links"];

export interface Growth {
  text: string;
  frozen: readonly Block[];
  /** The text after the frozen blocks, which may still change. */
  tail: Block | null;
  links: Links;
  /** The offset of the tail, and the offset up to which an open fence was searched for its end. */
  at: number;
  scanned: number;
  /** The head of a table that was cut; its remaining rows are parsed with it. */
  head: string;
  joined: boolean;
}

export const nothing: Growth = {
  ...{ text: "", frozen: [], tail: null, links: {}, at: 0, scanned: 0, head: "", joined: false },
};

const block_max_chars = 3072;
const table_max_chars = 1536;
const paragraph_max_chars = 2560;
const opening_max_chars = 2000;
const window_chars = 16_384;

/**
 * Updates the blocks for a text that usually extends the previous one; `done` means that nothing
 * follows.
 */
export function grow(before: Growth, whole: string, done: boolean): Growth {
  const text = whole.includes("\r") ? whole.replace(/\r\n?/g, "\n") : whole;
  const step: Growth = text.startsWith(before.text)
    ? { ...before, text, tail: null }
    : { ...nothing, text };
  const frozen = [...step.frozen];
  while (
    step.at < text.length &&
    (takeFence(step, frozen, done) || takeBlocks(step, frozen, done))
  );
  return { ...step, frozen };
}

const opening = /^(?: *\n)*( {0,3})(`{3,}(?=[^`\n]*\n)|~{3,}(?=[^\n]*\n))[^\S\n]*([^\n]*)\n/;

/** Fenced code, scanned line by line, whatever its length. True if it was frozen. */
function takeFence(step: Growth, frozen: Block[], done: boolean): boolean {
  if (step.head) return false; // a table continues here
  const [open, indent = "", fence = "", info = ""] =
    opening.exec(step.text.slice(step.at, step.at + opening_max_chars)) ?? [];
  if (open === undefined) return false;
  const begin = step.at + open.length;
  const close = new RegExp(`^ {0,3}${fence[0]}{${fence.length},}[^\\S\\n]*(?:\\n|$)`, "gm");
  close.lastIndex = Math.max(begin, step.scanned);
  let end = close.exec(step.text);
  // the line is incomplete and may still become code
  if (end && !end[0].endsWith("\n") && !done) end = null;
  const code = step.text.slice(begin, end ? end.index : step.text.length);
  const block: Block = {
    kind: "code",
    text: outdented(code, indent),
    lang: info.split(/[\s{,]/)[0]!.toLowerCase(),
    joined: false,
  };
  if (!end && !done) {
    step.tail = block;
    step.scanned = step.text.lastIndexOf("\n") + 1;
    return false;
  }
  frozen.push({ ...block, text: block.text.replace(/\n$/, "") });
  advance(step, end ? end.index + end[0].length : step.text.length);
  return true;
}

const outdented = (code: string, indent: string) =>
  indent ? code.replace(new RegExp(`^ {1,${indent.length}}`, "gm"), "") : code;

/** Every other kind of block. True if any was frozen. */
function takeBlocks(step: Growth, frozen: Block[], done: boolean): boolean {
  if (step.tail) return false;
  const from = step.at;
  for (let size = window_chars; ; size *= 2) {
    const whole = from + size >= step.text.length;
    if (freeze(step, frozen, step.text.slice(from, from + size), whole && done) && step.at > from)
      return true;
    if (whole) break;
  }
  step.tail = {
    kind: "markdown",
    text: step.head + step.text.slice(from),
    lang: "",
    joined: step.joined,
  };
  return false;
}

function freeze(step: Growth, frozen: Block[], rest: string, done: boolean): boolean {
  const lexer = new Lexer(marked.defaults);
  const tokens = lexer.blockTokens(step.head + rest, []);
  addLinks(step, lexer.tokens.links, done ? undefined : tokens.at(-1));
  const said = tokens.filter(({ type }) => type !== "space");
  const last = said.at(-1);
  let at = step.at - step.head.length;
  for (const token of tokens) {
    const first = token === said[0];
    const final = done || (last !== undefined && token !== last && last.raw.includes("\n"));
    // the next step reads it as a fence
    if (token.type === "code" && !first && /^ {0,3}[`~]{3}/.test(token.raw) && final) return true;
    const cut =
      token.raw.length > (token.type === "table" ? table_max_chars : block_max_chars)
        ? cutOf(token.type, token.raw, first ? step.head : "")
        : 0;
    if (cut > 0) {
      frozen.push({
        kind: "markdown",
        text: token.raw.slice(0, cut),
        lang: "",
        joined: first && step.joined,
      });
      const head = token.type === "table" ? headOf(token.raw) : "";
      advance(step, at + cut, head, true);
      return true;
    }
    if (!final || (mathOpening.test(token.raw) && !done && token.raw.length < block_max_chars))
      break;
    at += token.raw.length;
    if (token.type !== "space" && token.type !== "def")
      frozen.push({ kind: "markdown", text: token.raw, lang: "", joined: first && step.joined });
    advance(step, at);
  }
  return true;
}

/** Adds definitions of links, the first of each name, without one that may still be incomplete. */
function addLinks(step: Growth, found: Links, last: Token | undefined): void {
  const open = last?.type === "def" && !last.raw.endsWith("\n") ? (last as Tokens.Def).tag : null;
  const fresh = Object.entries(found).filter(([tag]) => tag !== open && !Object.hasOwn(step.links, tag));
  if (fresh.length) step.links = { ...step.links, ...Object.fromEntries(fresh) };
}

function advance(step: Growth, at: number, head = "", joined = false): void {
  Object.assign(step, { at, scanned: at, head, joined, tail: null });
}

const headOf = (table: string) => table.split("\n", 2).join("\n") + "\n";

/**
 * The offset at which a block that is too long is cut, independent of how it arrived; 0 if it
 * cannot be cut.
 */
function cutOf(type: string, raw: string, head: string): number {
  if (type === "list")
    return lastMatch(raw.slice(0, block_max_chars), /\n(?=(?:[-*+]|\d{1,9}[.)]) )/g);
  if (type === "table") {
    const cut = raw.lastIndexOf("\n", table_max_chars) + 1;
    return cut > Math.max(head.length, headOf(raw).length) && raw.slice(cut).trim() ? cut : 0;
  }
  return (
    lastMatch(raw.slice(0, paragraph_max_chars), /\s(?=\p{L})/gu) ||
    withoutHalves(raw, paragraph_max_chars)
  );
}

function lastMatch(text: string, pattern: RegExp): number {
  let cut = 0;
  for (const match of text.matchAll(pattern)) cut = match.index + 1;
  return cut;
}

/** The nearest offset before `at` that does not split a character. */
function withoutHalves(text: string, at: number): number {
  while (at > 1 && /^[\p{M}\u200d\udc00-\udfff\u{1f3fb}-\u{1f3ff}]/u.test(text.slice(at, at + 2)))
    at--;
  return at > 1 && /[\ud800-\udbff]/.test(text[at - 1]!) ? at - 1 : at;
}
