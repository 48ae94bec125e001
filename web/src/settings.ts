// What a person prefers in this browser: colours, size of text, what Enter does.
import { effect, signal } from "@preact/signals";
import { save, load, onOtherTab } from "./store";

export interface Settings {
  theme: "system" | "light" | "dark";
  size: "small" | "medium" | "large";
  enterSends: boolean;
}

const defaults: Settings = { theme: "system", size: "medium", enterSends: true };

export const settings = signal<Settings>({ ...defaults, ...load<Settings>("settings") });

export const change = (changes: Partial<Settings>): void => {
  settings.value = { ...settings.value, ...changes };
  save("settings", settings.value);
};

/** Puts the settings on the document, now and whenever they change, in whatever tab. */
export function applySettings(): void {
  onOtherTab((name) => name === "settings" && (settings.value = { ...defaults, ...load<Settings>("settings") }));
  effect(() => {
    const { dataset } = document.documentElement;
    dataset.theme = settings.value.theme;
    dataset.size = settings.value.size;
  });
}
