// The browser's storage: settings, drafts, pending messages. The page also works where storage is
// disabled or full.

import { at } from "./root";

const prefix = `tidemark:${at("")}`;

export function load<T>(name: string): T | null {
  try {
    return JSON.parse(localStorage.getItem(prefix + name) ?? "null");
  } catch {
    return null;
  }
}

/** Stores a value; null deletes it. */
export function save(name: string, value: unknown): void {
  try {
    if (value === null) localStorage.removeItem(prefix + name);
    else localStorage.setItem(prefix + name, JSON.stringify(value));
  } catch {
    // full or disabled: the value lasts as long as the tab
  }
}

/** The stored names that start with `group`, without this prefix. */
export function namesOf(group: string): string[] {
  try {
    return Object.keys(localStorage)
      .filter((name) => name.startsWith(prefix + group))
      .map((name) => name.slice(prefix.length + group.length));
  } catch {
    return [];
  }
}

/** Calls the listener with the name of each value that another tab changes. */
export const onOtherTab = (listener: (name: string) => void): void =>
  addEventListener(
    "storage",
    ({ key }) => key?.startsWith(prefix) && listener(key.slice(prefix.length)),
  );

/** The id of this tab, which survives reloads. */
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
