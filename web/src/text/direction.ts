// Directions of text: every paragraph, item, heading, quote and cell by its own first letter. Code and
// formulas are always left-to-right, and do not count.

const strong = /\p{L}/u;
const rtl = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;

/** The direction of the first letter; null if there is none. */
export function directionOf(text: string): "ltr" | "rtl" | null {
  const letter = strong.exec(text)?.[0];
  return letter ? (rtl.test(letter) ? "rtl" : "ltr") : null;
}

const blocks = "p,li,ul,ol,h1,h2,h3,h4,h5,h6,blockquote,table,th,td";

/** Gives every block below `root` its direction. */
export function direct(root: ParentNode): void {
  for (const code of root.querySelectorAll<HTMLElement>("code, figure.code")) {
    code.dir = "ltr";
    code.translate = false;
  }
  for (const block of root.querySelectorAll<HTMLElement>(blocks)) {
    const direction = directionIn(block);
    if (direction) block.dir = direction;
  }
}

function directionIn(block: HTMLElement): "ltr" | "rtl" | null {
  const texts = document.createTreeWalker(block, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const { data, parentElement } = texts.currentNode as Text;
    const direction = parentElement!.closest("code, figure") ? null : directionOf(data);
    if (direction) return direction;
  }
  return null;
}
