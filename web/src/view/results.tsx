// Search results, with the matches marked.
import { reveal } from "../conversation";
import type { Hit } from "../graphql";
import { listOpen } from "../overlays";
import { found, more } from "../search";
import { at } from "../root";

export function Results() {
  const { hits, next, busy } = found.value;
  return (
    <nav class="list results" aria-label="Search results" aria-busy={busy}>
      {hits.length === 0 && <p class="none">{busy ? "Searching…" : "No results."}</p>}
      <ul>
        {hits.map((hit, place) => (
          <Result key={`${hit.conversation.id}:${hit.message?.id ?? place}`} hit={hit} />
        ))}
      </ul>
      {next && (
        <button type="button" class="text-button quiet" onClick={() => more()}>
          More results
        </button>
      )}
    </nav>
  );
}

function Result({ hit: { conversation, message, excerpt } }: { hit: Hit }) {
  const show = (event: MouseEvent) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    listOpen.value = false;
    void reveal(conversation.id, message?.id ?? null);
  };
  const pieces = excerpt.map(({ text, match }, place) =>
    match ? <mark key={place}>{text}</mark> : text,
  );
  return (
    <li>
      <a href={at(`/c/${conversation.id}`)} onClick={show}>
        <span class="title" dir="auto">{message ? conversation.title || "Untitled" : pieces}</span>
        {message && <span class="excerpt" dir="auto">{pieces}</span>}
      </a>
    </li>
  );
}
