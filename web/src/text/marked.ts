// The Markdown dialect of the page: no HTML, no images that load by themselves, and formulas kept
// verbatim.
import { Marked, Tokenizer } from "marked";

export const escaped = (text: string) =>
  text.replace(/[&<>"]/g, (each) => `&#${each.charCodeAt(0)};`);

const plain = /^<\/?(b|br|i|kbd|mark|s|sub|sup|u) ?\/?>$/i;

// Otherwise Markdown would interpret backslashes and underscores in formulas. Prices such as $5 are
// not formulas.
const formula =
  /^(?:\$\$([^$]+)\$\$|\$(?![\s$])((?:\\.|[^$\\\n])*?)(?<!\s)\$(?!\d)|\\\((.+?)\\\)|\\\[(.+?)\\\])/s;
const displayed = /^ {0,3}(?:\$\$([^$]+?)\$\$|\\\[([\s\S]+?)\\\])[^\S\n]*(?:\n|$)/;

/** A display formula that has not ended. */
export const mathOpening = /^\s{0,3}(?:\$\$(?![\s\S]*\$\$)|\\\[(?![\s\S]*\\\]))/;

const shown = (text: string, display: boolean) =>
  `<code class="math${display ? " display" : ""}">${escaped(text)}</code>`;

// Quotes and lists in each other, beyond which they are text: a model that repeats itself would
// exhaust the stack, or lay out for seconds.
const nesting_max = 24;
let nesting = 0;

/** A tokenizer of marked that does not go deeper than `nesting_max`. */
function bounded<T>(tokenize: (this: Tokenizer, source: string) => T) {
  return function (this: unknown, source: string): T | undefined {
    if (nesting >= nesting_max) return undefined;
    nesting++;
    try {
      return tokenize.call(this as Tokenizer, source);
    } finally {
      nesting--;
    }
  };
}

export const marked = new Marked({
  gfm: true,
  extensions: [
    {
      name: "displayed",
      level: "block",
      start: (source) => /(?:^|\n) {0,3}(?:\$\$|\\\[)/.exec(source)?.index,
      tokenizer(source) {
        const [raw, ...said] = displayed.exec(source) ?? [];
        return raw ? { type: "displayed", raw, text: said.find(Boolean)!.trim() } : undefined;
      },
      renderer: ({ text }) => `<p>${shown(text, true)}</p>`,
    },
    {
      name: "formula",
      level: "inline",
      start: (source) => source.search(/\$|\\[([]/),
      tokenizer(source) {
        const [raw, ...said] = formula.exec(source) ?? [];
        return raw ? { type: "formula", raw, text: said.find(Boolean)?.trim() ?? raw } : undefined;
      },
      renderer: ({ raw, text }) => shown(text, raw.startsWith("$$") || raw.startsWith("\\[")),
    },
  ],
  tokenizer: {
    // "€80~120" is a range.
    del: (source) => (source.startsWith("~~") ? false : undefined),
    blockquote: bounded(Tokenizer.prototype.blockquote),
    list: bounded(Tokenizer.prototype.list),
  },
  renderer: {
    // Nothing is fetched because a model wrote a URL: an image becomes a link.
    image: ({ href, text }) => `<a href="${escaped(href)}">${escaped(text || href)}</a>`,
    // Text between script tags is escaped like any other text.
    text(token) {
      if ("tokens" in token && token.tokens) return this.parser.parseInline(token.tokens);
      return "escaped" in token && token.escaped ? escaped(token.text) : false;
    },
    // HTML is shown as text, except plain tags that have no Markdown syntax.
    html: ({ text }) => (plain.test(text) ? text : escaped(text)),
  },
});
