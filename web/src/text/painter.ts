// Renders a growing text: frozen blocks once, the tail on every update, in time slices.
import { type Block, grow, type Growth, nothing } from "./blocks";
import { enrich, preload } from "./enrich";
import { codeFigure, element, fragmentOf } from "./fragment";
import { morph } from "./morph";

const slice_ms = 10;

/** The recent cost of rendering; callers that render repeatedly adapt their rate to it. */
export let cost_ms = 0;
const chunk_lines = 60;
const heading = /^H[1-6]$/;

/**
 * One text on the page. Call `paint` with a longer text at any time, and `end` when it is removed.
 */
export class Painter {
  private growth: Growth = nothing;
  private painted = 0;
  private tail: HTMLElement | null = null;
  private shown = "";
  private text = "";
  private links = this.growth.links;
  private timer = 0;
  private isPlain = false;

  constructor(private readonly host: HTMLElement) {}

  /** Shows the text; as it is, if it cannot be rendered. */
  paint(text: string, growing: boolean): void {
    const began = performance.now();
    this.text = text;
    this.attempt(() => this.render(growing));
    cost_ms = Math.max(performance.now() - began, cost_ms * 0.8);
  }

  /** Renders, now or in a later slice; after an error, the text is shown without formatting. */
  private attempt(render: () => void): void {
    try {
      if (!this.isPlain) return render();
    } catch (error) {
      console.warn(error);
      this.isPlain = true;
      this.host.classList.add("plain");
    }
    this.host.textContent = this.text;
  }

  private render(growing: boolean): void {
    const before = this.growth;
    this.growth = grow(before, this.text, !growing);
    if (!this.growth.text.startsWith(before.text)) this.forget();
    else if (this.growth.links !== this.links) this.relink();
    this.links = this.growth.links;
    this.draw();
  }

  /** Renders the blocks again that use a link whose definition has come since. */
  private relink(): void {
    const { frozen, links } = this.growth;
    const fresh = Object.keys(links).filter((tag) => !Object.hasOwn(this.links, tag));
    for (const [place, block] of frozen.slice(0, this.painted).entries()) {
      const text = block.kind === "code" ? "" : block.text.toLowerCase().replace(/\s+/g, " ");
      if (!fresh.some((tag) => text.includes(`[${tag}]`))) continue;
      enrich(this.show(this.host.children[place] as HTMLElement, block, links, false));
    }
    this.shown = "";
  }

  end(): void {
    clearTimeout(this.timer);
  }

  private forget(): void {
    this.host.replaceChildren();
    this.painted = 0;
    this.tail = null;
  }

  private draw = (): void => {
    clearTimeout(this.timer);
    const { frozen, tail, links } = this.growth;
    const began = performance.now();
    for (; this.painted < frozen.length; this.painted++) {
      if (performance.now() - began > slice_ms) {
        this.timer = window.setTimeout(() => this.attempt(this.draw));
        return;
      }
      const block = this.show(this.tail, frozen[this.painted]!, links, false);
      this.tail = null;
      enrich(block);
    }
    if (tail) preload((this.tail = this.show(this.tail, tail, links, true)));
    else this.tail?.remove();
    if (!tail) this.tail = null;
  };

  /** Renders a block, into its previous element if that can be reused. */
  private show(
    old: HTMLElement | null,
    block: Block,
    links: Growth["links"],
    growing: boolean,
  ): HTMLElement {
    const sort = block.kind === "code" ? "block fenced" : "block";
    let place = old;
    if (
      !place ||
      !place.className.startsWith(sort) ||
      (sort === "block" && place.classList.contains("fenced"))
    ) {
      place = element("div", sort);
      if (old) old.replaceWith(place);
      else this.host.append(place);
    }
    if (block.joined) place.previousElementSibling?.classList.add("cut");
    if (block.kind === "code") showCode(place, block);
    else this.showMarkdown(place, growing ? wholeRows(block.text) : block.text, links, growing);
    const classes = [
      sort,
      block.joined && "joined",
      place.classList.contains("cut") && "cut",
      heading.test(place.firstElementChild?.tagName ?? "") && "headed",
    ];
    const className = [...classes, heading.test(place.lastElementChild?.tagName ?? "") && "heads"]
      .filter(Boolean)
      .join(" ");
    if (place.className !== className) place.className = className;
    return place;
  }

  private showMarkdown(
    place: HTMLElement,
    text: string,
    links: Growth["links"],
    growing: boolean,
  ): void {
    const same = growing && place === this.tail && text === this.shown;
    if (!same) morph(place, fragmentOf(text, links, growing));
    this.shown = growing ? text : "";
  }
}

/** A table without the incomplete last row, whose cells would flicker. */
function wholeRows(markdown: string): string {
  const end = markdown.lastIndexOf("\n") + 1;
  return markdown[end] === "|" && /^\n*\|[^\n]*\n[|:\- ]+\n/.test(markdown)
    ? markdown.slice(0, end)
    : markdown;
}

/** Renders code in chunks of lines, so that the browser lays out only the last one again. */
function showCode(place: HTMLElement, { text, lang }: Block): void {
  let code = place.querySelector("code");
  if (!code) {
    place.append(codeFigure(lang));
    code = place.querySelector("code")!;
  }
  const shown = Number(code.dataset.chars ?? 0);
  if (shown > text.length)
    code.lastChild!.textContent = (code.lastChild!.textContent ?? "").slice(0, text.length - shown);
  let last = code.lastElementChild as HTMLElement | null;
  for (const line of text.slice(shown).split(/(?<=\n)/)) {
    const lines = Number(last?.dataset.lines ?? 0);
    if (!last || lines >= chunk_lines) {
      last = element("span", "lines");
      code.append(last);
    }
    if (line.endsWith("\n")) last.dataset.lines = String(Number(last.dataset.lines ?? 0) + 1);
    if (last.firstChild instanceof Text) last.firstChild.appendData(line);
    else last.append(line);
  }
  code.dataset.chars = String(text.length);
}
