// The available models, and the model and system prompt of the open conversation.
import { computed, signal } from "@preact/signals";
import { call } from "./api";
import { tree } from "./conversation";
import { change } from "./conversations";
import { report } from "./session";
import type { Model, Page } from "./state/shapes";
import { save, load } from "./store";

export const models = signal<Model[]>([]);
/** The choice for new conversations. */
const chosen = signal(load<string>("model") ?? "");
export const newSystemPrompt = signal("");

export async function readModels(): Promise<void> {
  try {
    models.value = (await call<Page<Model>>("GET", "/api/models")).data;
  } catch (error) {
    report(error);
  }
}

const defaultModel = computed(() => {
  const known = models.value.find(({ id }) => id === chosen.value);
  return (known ?? models.value.find((each) => each.default) ?? models.value[0])?.id ?? "";
});

export const modelHere = computed(() => tree.value.conversation?.model ?? defaultModel.value);

export const systemPromptHere = computed(
  () => tree.value.conversation?.system_prompt ?? newSystemPrompt.value,
);

/** Changes the model of the open conversation, or of new ones if none is open. */
export function chooseModel(model: string): void {
  const { id } = tree.value;
  if (id) void change(id, { model });
  else save("model", (chosen.value = model));
}

export function chooseSystemPrompt(text: string): void {
  const { id } = tree.value;
  if (id) void change(id, { system_prompt: text.trim() ? text : null });
  else newSystemPrompt.value = text;
}
