// Copying to the clipboard.

const copied_ms = 1500;

/**
 * Copies a text and marks the button as done. Falls back to `execCommand` on plain http, where
 * there is no clipboard API.
 */
export async function copy(text: string, button: HTMLElement): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = document.createElement("textarea");
    field.value = text;
    // Inside an open dialog, only what is in it can be selected.
    button.before(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    button.focus();
    if (!done) return;
  }
  button.dataset.done = "true";
  setTimeout(() => delete button.dataset.done, copied_ms);
}
