// The list of conversations: rows in, groups by day out.
import type { Conversation, Page, PageEvent } from "./shapes";

export interface List {
  byId: ReadonlyMap<string, Conversation>;
  /**
   * The cursors for older conversations, active and archived; undefined until the first page is
   * loaded.
   */
  next: { main: string | null | undefined; archived: string | null | undefined };
}

export interface Group {
  label: string;
  conversations: Conversation[];
}

export const emptyList: List = { byId: new Map(), next: { main: undefined, archived: undefined } };

export function applyToList(list: List, event: PageEvent): List {
  switch (event.type) {
    case "conversation_changed":
      return put(list, [event.conversation]);
    case "conversation_removed":
      return without(list, event.id);
    case "opened":
      return event.conversation ? put(list, [event.conversation]) : list;
    default:
      return list;
  }
}

export const put = (list: List, conversations: Conversation[]): List => ({
  ...list,
  byId: new Map([...list.byId, ...conversations.map((each) => [each.id, each] as const)]),
});

export function without(list: List, id: string): List {
  const byId = new Map(list.byId);
  return byId.delete(id) ? { ...list, byId } : list;
}

/** Adds a page; a first page (`fresh`) replaces the known conversations of its kind. */
export function withPage(
  list: List,
  page: Page<Conversation>,
  which: "main" | "archived",
  fresh: boolean,
): List {
  const kept = [...list.byId].filter(
    ([, each]) => !fresh || each.archived !== (which === "archived"),
  );
  return put({ byId: new Map(kept), next: { ...list.next, [which]: page.next } }, page.data);
}

/** Newest first, as the server lists them. */
export const ordered = (list: List, archived: boolean): Conversation[] =>
  [...list.byId.values()]
    .filter((each) => each.archived === archived)
    .sort((a, b) =>
      a.updated_at < b.updated_at ? 1 : a.updated_at > b.updated_at ? -1 : a.id < b.id ? 1 : -1,
    );

const day_ms = 86_400_000;
const startOfDay = (at: Date) => new Date(at.getFullYear(), at.getMonth(), at.getDate()).getTime();

/** The list grouped by day in `now`'s time zone, pinned conversations first. */
export function groups(list: List, archived: boolean, now: Date): Group[] {
  const found = new Map<string, Conversation[]>();
  const all = ordered(list, archived);
  for (const each of [
    ...all.filter(({ pinned }) => pinned),
    ...all.filter(({ pinned }) => !pinned),
  ]) {
    const label = each.pinned ? "Pinned" : dayOf(new Date(each.updated_at), now);
    found.set(label, [...(found.get(label) ?? []), each]);
  }
  return [...found].map(([label, conversations]) => ({ label, conversations }));
}

function dayOf(at: Date, now: Date): string {
  const days = Math.round((startOfDay(now) - startOfDay(at)) / day_ms);
  if (days <= 0) return "Today";
  if (days === 1) return "Yesterday";
  if (days < 7) return "This week";
  if (days < 31) return "This month";
  return at.toLocaleDateString("en", { month: "long", year: "numeric" });
}

/** The conversation before or after another one in the displayed order. */
export function neighbour(list: List, id: string | null, step: 1 | -1, now: Date): string | null {
  const ids = groups(list, false, now).flatMap(({ conversations }) =>
    conversations.map((each) => each.id),
  );
  const place = id ? ids.indexOf(id) : -1;
  if (place < 0) return step > 0 ? (ids[0] ?? null) : null;
  return ids[place + step] ?? null;
}
