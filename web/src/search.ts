// Search: in the loaded titles at once, and in all messages on the server.
import { computed, effect, signal } from "@preact/signals";
import { list } from "./conversations";
import * as graphql from "./graphql";
import { inTitles } from "./state/excerpts";
import { ordered } from "./state/list";

export interface Found {
  hits: graphql.Hit[];
  next: string | null;
  busy: boolean;
}

const ask_after_ms = 180;
const titles_max = 8;

export const query = signal("");
const said = signal<Found>({ hits: [], next: null, busy: false });

/** Loaded titles first, then the other results of the server. */
export const found = computed<Found>(() => {
  const all = [...ordered(list.value, false), ...ordered(list.value, true)];
  const titles = inTitles(all, query.value.trim()).slice(0, titles_max);
  const shown = new Set(titles.map(({ conversation }) => conversation.id));
  const others = said.value.hits.filter(
    ({ conversation, message }) => message || !shown.has(conversation.id),
  );
  return { ...said.value, hits: [...titles, ...others] };
});

let round = 0;

effect(() => {
  const wanted = query.value.trim();
  const mine = ++round;
  if (!wanted) {
    said.value = { hits: [], next: null, busy: false };
    return;
  }
  said.value = { ...said.peek(), busy: true };
  setTimeout(() => mine === round && void read(wanted, null, mine), ask_after_ms);
});

async function read(wanted: string, after: string | null, mine: number): Promise<void> {
  try {
    const { hits, next } = await graphql.search(wanted, after);
    if (mine === round)
      said.value = { hits: after ? [...said.value.hits, ...hits] : hits, next, busy: false };
  } catch {
    // results in titles remain
    if (mine === round) said.value = { hits: [], next: null, busy: false };
  }
}

export const more = (): Promise<void> => read(query.value.trim(), said.value.next, round);
