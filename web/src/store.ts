// What a browser keeps for the page: settings, drafts, what was sent. Where it keeps nothing (or is full), the page still works.

const prefix = "tidemark:";

export function load<T>(name: string): T | null {
  try {
    return JSON.parse(localStorage.getItem(prefix + name) ?? "null");
  } catch {
    return null;
  }
}

/** Keeps a value, or forgets it (null). */
export function save(name: string, value: unknown): void {
  try {
    if (value === null) localStorage.removeItem(prefix + name);
    else localStorage.setItem(prefix + name, JSON.stringify(value));
  } catch {
    // full, or not allowed: it lives as long as the tab
  }
}

/** The names that begin so, without that beginning. */
export function namesOf(group: string): string[] {
  try {
    return Object.keys(localStorage)
      .filter((name) => name.startsWith(prefix + group))
      .map((name) => name.slice(prefix.length + group.length));
  } catch {
    return [];
  }
}

/** Is told the name of what another tab changed. */
export const onOtherTab = (listener: (name: string) => void): void =>
  addEventListener("storage", ({ key }) => key?.startsWith(prefix) && listener(key.slice(prefix.length)));

/** The same for as long as this tab lives, reloads included. */
export const tab: string = (() => {
  const fresh = Math.random().toString(36).slice(2);
  try {
    const known = sessionStorage.getItem(`${prefix}tab`) ?? fresh;
    sessionStorage.setItem(`${prefix}tab`, known);
    return known;
  } catch {
    return fresh;
  }
})();
