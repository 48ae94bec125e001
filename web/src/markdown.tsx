// An answer's Markdown as sanitised HTML, block by block, so that a growing answer only draws its last block again.
import DOMPurify from "dompurify";
import { Marked, type Token } from "marked";
import { useMemo } from "preact/hooks";
import remend from "remend";

const tags =
  "a b blockquote br code del em h1 h2 h3 h4 h5 h6 hr i input kbd li mark ol p pre s strong sub sup table tbody td th thead tr u ul";
const attributes = "href title align start type checked disabled";
const plain = /^<\/?(b|br|i|kbd|mark|s|sub|sup|u) ?\/?>$/i;

// A formula is shown as it was written: Markdown would take backslashes and underscores out of it. Prices are no formulas.
const formula = /^(?:\$\$([^$]+)\$\$|\$(?![\s$])((?:\\.|[^$\\\n])*?)(?<!\s)\$(?!\d)|\\\((.+?)\\\)|\\\[(.+?)\\\])/s;

const marked = new Marked({
  gfm: true,
  extensions: [
    {
      name: "formula",
      level: "inline",
      start: (source) => source.search(/\$|\\[([]/),
      tokenizer(source) {
        const [raw, ...said] = formula.exec(source) ?? [];
        return raw ? { type: "formula", raw, text: said.find(Boolean)?.trim() ?? raw } : undefined;
      },
      renderer: ({ text }) => `<code>${escaped(text)}</code>`,
    },
  ],
  renderer: {
    // Nothing is fetched because a model said so: an image is a link to it.
    image: ({ href, text }) => `<a href="${escaped(href)}">${escaped(text || href)}</a>`,
    // HTML is shown as it was written, but for plain tags that Markdown has no sign for.
    html: ({ text }) => (plain.test(text) ? text : escaped(text)),
  },
});

const purify = DOMPurify();
purify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName === "A") {
    node.setAttribute("target", "_blank");
    node.setAttribute("rel", "noopener noreferrer nofollow");
  }
  if (node.tagName === "INPUT") {
    node.setAttribute("type", "checkbox");
    node.setAttribute("disabled", "");
  }
  if (node.tagName === "PRE") node.setAttribute("tabindex", "0"); // wide code can be scrolled by keyboard
});

const escaped = (text: string) => text.replace(/[&<>"]/g, (each) => `&#${each.charCodeAt(0)};`);

function sanitised(html: string): string {
  return purify.sanitize(html, {
    ALLOWED_TAGS: tags.split(" "),
    ALLOWED_ATTR: attributes.split(" "),
    ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
    ADD_URI_SAFE_ATTR: ["align", "start", "type"],
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
  });
}

export function Markdown({ text, growing }: { text: string; growing: boolean }) {
  const blocks = marked.lexer(growing ? remend(text) : text).filter(({ type }) => type !== "space" && type !== "def");
  return (
    <div class="markdown">
      {blocks.map((block, index) => (
        <Block key={index} block={block} />
      ))}
    </div>
  );
}

function Block({ block }: { block: Token }) {
  const html = useMemo(() => sanitised(marked.parser([block])), [block.raw]);
  return <div class="block" dangerouslySetInnerHTML={{ __html: html }} />;
}
