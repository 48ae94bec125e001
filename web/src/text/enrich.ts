// Syntax highlighting and formulas, loaded only when an answer contains them.
import { sanitised } from "./fragment";

const code_max_chars = 40_000;

/** Starts highlighting code and typesetting formulas in a frozen block. */
export function enrich(block: HTMLElement): void {
  const codes = block.querySelectorAll<HTMLElement>("code[data-lang]");
  if (codes.length) void colours().then((dress) => codes.forEach(dress), ignored);
  const formulas = block.querySelectorAll<HTMLElement>("code.math");
  if (formulas.length) void typesetting().then((set) => formulas.forEach(set), ignored);
}

/** Starts loading what a growing block will need. */
export function preload(block: HTMLElement): void {
  if (block.querySelector("code[data-lang]")) void colours().catch(ignored);
  if (block.querySelector("code.math")) void typesetting().catch(ignored);
}

const ignored = () => {}; // the plain text remains

const colours = once(async () => {
  const { default: highlight } = await import("./colours");
  return (code: HTMLElement) => {
    const { lang = "" } = code.dataset;
    const text = code.textContent ?? "";
    if (!highlight.getLanguage(lang) || text.length > code_max_chars) return;
    requestIdle(() => {
      if (code.isConnected)
        code.replaceChildren(
          sanitised(highlight.highlight(text, { language: lang, ignoreIllegals: true }).value),
        );
    });
  };
});

const typesetting = once(async () => {
  const { default: katex } = await import("./formulas");
  return (formula: HTMLElement) => {
    const set = document.createElement("span");
    const display = formula.classList.contains("display");
    set.className = display ? "formula display" : "formula";
    if (display) set.tabIndex = 0;
    set.dir = "ltr";
    set.translate = false;
    katex.render(formula.textContent ?? "", set, {
      ...{
        displayMode: display,
        throwOnError: false,
        trust: false,
        strict: "ignore",
        maxExpand: 200,
        maxSize: 20,
      },
    });
    formula.replaceWith(set);
  };
});

/** Loads once; after a failure, the next call tries again. */
function once<T>(load: () => Promise<T>): () => Promise<T> {
  let loading: Promise<T> | undefined;
  return () =>
    (loading ??= load().catch((error) => {
      loading = undefined;
      throw error;
    }));
}

const requestIdle = (work: () => void) =>
  "requestIdleCallback" in window
    ? void requestIdleCallback(work, { timeout: 500 })
    : void setTimeout(work);
