// Text that is still being composed by an input method, e.g. for Japanese.

/** Whether a key belongs to the input method. Safari ends the composition before its last Enter. */
export const isComposing = (event: KeyboardEvent) => event.isComposing || event.keyCode === 229;
