// The list of conversations by day.
import { expect, test } from "vitest";
import { applyToList, emptyList, groups, type List, neighbour, put, withPage } from "./list";
import type { Conversation } from "./shapes";

const now = new Date(2026, 5, 15, 12);
const at = (days: number) => new Date(2026, 5, 15 - days, 9).toISOString();
const conversation = (
  id: string,
  days: number,
  more: Partial<Conversation> = {},
): Conversation => ({
  ...{
    id,
    title: id,
    pinned: false,
    archived: false,
    model: "demo",
    system_prompt: null,
    shown_message_id: null,
  },
  ...{ active_generations: [], updated_at: at(days), ...more },
});

const shown = (list: List, archived = false) =>
  Object.fromEntries(
    groups(list, archived, now).map(({ label, conversations }) => [
      label,
      conversations.map(({ id }) => id),
    ]),
  );

const list = put(emptyList, [
  ...[
    conversation("old", 200),
    conversation("new", 0),
    conversation("older today", 0, { updated_at: new Date(2026, 5, 15, 1).toISOString() }),
  ],
  ...[
    conversation("pin", 40, { pinned: true }),
    conversation("yesterday", 1),
    conversation("week", 4),
    conversation("month", 20),
  ],
  conversation("away", 0, { archived: true }),
]);

test("conversations are grouped by day, pinned ones first, archived ones separately", () => {
  expect(shown(list)).toEqual({
    ...{
      Pinned: ["pin"],
      Today: ["new", "older today"],
      Yesterday: ["yesterday"],
      "This week": ["week"],
      "This month": ["month"],
    },
    "November 2025": ["old"],
  });
  expect(shown(list, true)).toEqual({ Today: ["away"] });
});

test("events add, move and remove conversations", () => {
  const changed = applyToList(list, {
    type: "conversation_changed",
    conversation: conversation("old", 0, { updated_at: at(-0.1) }),
  });
  const removed = applyToList(list, { type: "conversation_removed", id: "new" });

  expect(shown(changed)["November 2025"]).toBeUndefined();
  expect(shown(removed).Today).toEqual(["older today"]);
});

test("a first page replaces the known conversations of its kind, later pages add", () => {
  const fresh = withPage(list, { data: [conversation("only", 0)], next: "more" }, "main", true);
  const more = withPage(fresh, { data: [conversation("another", 1)], next: null }, "main", false);

  expect(shown(fresh)).toEqual({ Today: ["only"] });
  expect(shown(fresh, true)).toEqual({ Today: ["away"] });
  expect(shown(more)).toEqual({ Today: ["only"], Yesterday: ["another"] });
  expect(more.next.main).toBeNull();
});

test("next and previous follow the displayed order", () => {
  expect(neighbour(list, "pin", 1, now)).toBe("new");
  expect(neighbour(list, "new", -1, now)).toBe("pin");
  expect(neighbour(list, "old", 1, now)).toBeNull();
  expect(neighbour(list, null, 1, now)).toBe("pin");
});
