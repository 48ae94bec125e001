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
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  button.dataset.done = "true";
  setTimeout(() => delete button.dataset.done, copied_ms);
}
