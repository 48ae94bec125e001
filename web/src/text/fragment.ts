// Renders a block of Markdown to sanitised nodes, with captions on code and scrollable containers
// for wide tables.
import DOMPurify from "dompurify";
import { Lexer } from "marked";
import type { Links } from "./blocks";
import { direct } from "./direction";
import { marked } from "./marked";

const tags =
  "a b blockquote br code del em h1 h2 h3 h4 h5 h6 hr i input kbd li mark ol p pre s span strong sub sup table tbody td th thead tr u ul";
const attributes = "href title align start type checked disabled class";
const classes = /^(?:math(?: display)?|language-\S+|hljs-[\w -]+)$/;

const purify = DOMPurify();
purify.addHook("afterSanitizeAttributes", (node) => {
  if (node.hasAttribute("class") && !classes.test(node.className)) node.removeAttribute("class");
  if (node.tagName === "A") {
    node.setAttribute("target", "_blank");
    node.setAttribute("rel", "noopener noreferrer nofollow");
  }
  if (node.tagName === "INPUT") {
    node.setAttribute("type", "checkbox");
    node.setAttribute("disabled", "");
  }
});

/** Sanitised nodes of untrusted HTML. */
export function sanitised(html: string): DocumentFragment {
  return purify.sanitize(html, {
    ALLOWED_TAGS: tags.split(" "),
    ALLOWED_ATTR: attributes.split(" "),
    ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
    ADD_URI_SAFE_ATTR: ["align", "start", "type", "class"],
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    RETURN_DOM_FRAGMENT: true,
  });
}

let mend: ((markdown: string) => string) | undefined;

/**
 * Closes Markdown syntax that is still open; the library is loaded when the first growing answer is
 * rendered.
 */
function mended(markdown: string): string {
  mend ??=
    (void import("remend")
      .then(({ default: remend }) => (mend = remend))
      .catch(() => (mend = undefined)),
    (same) => same);
  return mend(withTable(markdown));
}

/** Completes the delimiter row of a table that has just begun. */
function withTable(markdown: string): string {
  const [head = "", ...rest] = markdown
    .slice(markdown.lastIndexOf("\n\n") + 1)
    .trimStart()
    .split("\n");
  if (!head.startsWith("|") || rest.length > 1 || !/^[|:\- ]*$/.test(rest[0] ?? ""))
    return markdown;
  const columns = head.replace(/^\||\|\s*$/g, "").split("|").length;
  return `${markdown.slice(0, rest.length ? markdown.lastIndexOf("\n") : undefined)}\n|${" --- |".repeat(columns)}`;
}

/** The nodes of a block; while it grows, open Markdown syntax counts as closed. */
export function fragmentOf(markdown: string, links: Links, growing: boolean): DocumentFragment {
  const lexer = new Lexer(marked.defaults);
  Object.assign(lexer.tokens.links, links);
  const fragment = sanitised(marked.parser(lexer.lex(growing ? mended(markdown) : markdown)));
  for (const pre of fragment.querySelectorAll("pre")) {
    const lang = /language-(\S+)/.exec(pre.firstElementChild?.className ?? "")?.[1] ?? "";
    const figure = codeFigure(lang);
    pre.replaceWith(figure);
    figure.querySelector("code")!.textContent = (pre.textContent ?? "").replace(/\n$/, "");
  }
  for (const table of fragment.querySelectorAll("table")) {
    const wide = element("div", "wide");
    Object.assign(wide, { tabIndex: 0, role: "group", ariaLabel: "Table" });
    table.replaceWith(wide);
    wide.append(table);
  }
  for (const box of fragment.querySelectorAll("input")) {
    box.ariaLabel = box.checked ? "Done" : "To do";
    box.closest("li")?.classList.add("task");
  }
  direct(fragment);
  return fragment;
}

export function element(tag: string, className = "", text = ""): HTMLElement {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

/** A figure for code with its language and a copy button, whose clicks the thread handles. */
export function codeFigure(lang: string): HTMLElement {
  const figure = element("figure", "code");
  figure.dir = "ltr";
  const caption = element("figcaption");
  const copy = element("button", "copy", "Copy");
  copy.setAttribute("type", "button");
  copy.setAttribute("aria-label", "Copy code");
  caption.append(element("span", "", lang || "text"), copy);
  const pre = element("pre");
  pre.translate = false;
  pre.tabIndex = 0; // so that wide code can be scrolled by keyboard
  const code = element("code");
  if (lang) code.dataset.lang = lang;
  pre.append(code);
  figure.append(caption, pre);
  return figure;
}
