// The list of conversations: loading it page by page, and changing, archiving and deleting
// conversations.
import { signal } from "@preact/signals";
import { call } from "./api";
import * as graphql from "./graphql";
import { dismiss, notices, notify } from "./notices";
import { report } from "./session";
import { applyToList, emptyList, type List, put, without, withPage } from "./state/list";
import type { Conversation, Page, PageEvent } from "./state/shapes";

const page_conversations = 40;

export const list = signal<List>(emptyList);
export const showsArchived = signal(false);
const loading = { main: false, archived: false };

/** Applies the events of the stream to the list. */
export function take(events: PageEvent[]): void {
  const after = events.reduce(applyToList, list.value);
  if (after !== list.value) list.value = after;
}

type Which = "main" | "archived";

/** Loads the first page again; later changes come from the stream. */
export const refresh = async (): Promise<void> => {
  await read("main", null);
  if (list.value.next.archived !== undefined) await read("archived", null);
  const pinned = await graphql.pinned().catch(() => []);
  const unknown = pinned.filter(({ id }) => !list.value.byId.has(id));
  if (unknown.length) list.value = put(list.value, unknown);
};

/** Loads the next page, if there is one. */
export async function readMore(which: Which): Promise<void> {
  const next = list.value.next[which];
  if (next !== null) await read(which, next ?? null);
}

async function read(which: Which, before: string | null): Promise<void> {
  if (loading[which]) return;
  loading[which] = true;
  try {
    const query = `limit=${page_conversations}&archived=${which === "archived"}${before ? `&before=${encodeURIComponent(before)}` : ""}`;
    const page = await call<Page<Conversation>>("GET", `/api/conversations?${query}`);
    list.value = withPage(list.value, page, which, before === null);
  } catch (error) {
    report(error);
  } finally {
    loading[which] = false;
  }
}

/** Changes a conversation optimistically; undone if the server rejects it. */
export async function change(
  id: string,
  changes: Partial<
    Pick<
      Conversation,
      "title" | "pinned" | "archived" | "model" | "system_prompt" | "shown_message_id"
    >
  >,
): Promise<Conversation | null> {
  const before = list.value.byId.get(id);
  if (before) list.value = put(list.value, [{ ...before, ...changes }]);
  try {
    const after = await call<Conversation>("PATCH", `/api/conversations/${id}`, changes);
    list.value = put(list.value, [after]);
    return after;
  } catch (error) {
    if (before) list.value = put(list.value, [before]);
    report(error);
    return null;
  }
}

export async function archive(id: string, archived: boolean): Promise<void> {
  if (await change(id, { archived }))
    notify(archived ? "Archived." : "Moved back to the list.", {
      label: "Undo",
      do: () => void change(id, { archived: !archived }),
    });
}

/** Deletes a conversation and offers to undo it; true when it was deleted. */
export async function remove(id: string): Promise<boolean> {
  const before = list.value.byId.get(id);
  list.value = without(list.value, id);
  try {
    await call("DELETE", `/api/conversations/${id}`);
  } catch (error) {
    if (before) list.value = put(list.value, [before]);
    report(error);
    return false;
  }
  notify("Conversation deleted.", { label: "Undo", do: () => void restore(id) });
  return true;
}

async function restore(id: string): Promise<void> {
  for (const each of notices.value) if (each.act) dismiss(each.id);
  try {
    await graphql.restore(id);
    list.value = put(list.value, [await call<Conversation>("GET", `/api/conversations/${id}`)]);
  } catch (error) {
    report(error);
  }
}
