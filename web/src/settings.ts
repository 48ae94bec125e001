// The settings of this browser: theme, text size, what Enter does.
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

/** Applies the settings to the document, now and whenever they change, also in another tab. */
export function applySettings(): void {
  onOtherTab(
    (name) =>
      name === "settings" && (settings.value = { ...defaults, ...load<Settings>("settings") }),
  );
  effect(() => {
    const { dataset } = document.documentElement;
    dataset.theme = settings.value.theme;
    dataset.size = settings.value.size;
  });
}
