// The page as it is seen: the list at the side, and around the open conversation.
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { Composer } from "./composer";
import * as page from "./page";
import { notice, session } from "./session";
import { Thread } from "./thread";

export function Page() {
  const listOpen = useSignal(false);
  const aside = useRef<HTMLElement>(null);
  const asked = page.earlier.value ? null : page.messages.value[0]?.message.text;
  const title = page.conversations.value.data.find(({ id }) => id === page.openId.value)?.title || asked;
  useEffect(() => {
    document.title = title ? `${title} · Tidemark` : "Tidemark";
  }, [title]);
  useEffect(() => {
    if (listOpen.value) aside.current?.querySelector("a")?.focus();
  }, [listOpen.value]);
  if (session.value !== "ready") return <Threshold />;
  return (
    <div class="page" onKeyDown={(event) => event.key === "Escape" && (listOpen.value = false)}>
      <aside id="list" ref={aside} class={listOpen.value ? "open" : ""} aria-label="Conversations">
        <Conversations onChoice={() => (listOpen.value = false)} />
      </aside>
      <div class="veil" onClick={() => (listOpen.value = false)} />
      <div class="main">
        <header>
          <button
            type="button"
            class="plain menu"
            aria-label="Conversations"
            aria-controls="list"
            aria-expanded={listOpen.value}
            onClick={() => (listOpen.value = !listOpen.value)}
          >
            <svg viewBox="0 0 20 20" aria-hidden="true">
              <path d="M3 6h14M3 10h14M3 14h9" />
            </svg>
          </button>
          <h1>{title ?? (page.openId.value ? "Untitled" : "New chat")}</h1>
        </header>
        <Thread />
        {notice.value && (
          <div class="notice" role="alert">
            <span>{notice.value}</span>
            <button type="button" class="plain" onClick={() => (notice.value = null)}>
              Dismiss
            </button>
          </div>
        )}
        <Composer />
      </div>
      <div class="unseen" role="status" aria-live="polite">
        {page.announcement.value}
      </div>
    </div>
  );
}

/** What is shown before, or instead of, the chat. */
function Threshold() {
  return (
    <main class="threshold">
      <p class="name">Tidemark</p>
      {session.value === "starting" && <p>Opening…</p>}
      {session.value === "unreachable" && <p role="status">The server cannot be reached. Trying again…</p>}
      {session.value === "signed_out" && (
        <div role="status">
          <h1>You are not signed in</h1>
          {notice.value && <p>{notice.value}</p>}
          <p>Open the sign-in link you were given. A link works once; who runs this server makes a new one with:</p>
          <pre>tidemark user link you@example.org</pre>
          <p>
            <a href="/">Try again</a>
          </p>
        </div>
      )}
    </main>
  );
}

function Conversations({ onChoice }: { onChoice: () => void }) {
  const { data, next } = page.conversations.value;
  const follow = (id: string | null) => (event: MouseEvent) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    page.go(id);
    onChoice();
  };
  return (
    <nav>
      <p class="name">Tidemark</p>
      <a class="new" href="/" onClick={follow(null)}>
        New chat
      </a>
      <ul>
        {data.map(({ id, title }) => (
          <li key={id}>
            <a href={`/c/${id}`} aria-current={id === page.openId.value ? "page" : undefined} onClick={follow(id)}>
              {title || "Untitled"}
            </a>
          </li>
        ))}
      </ul>
      {next && (
        <button type="button" class="plain" onClick={() => page.listConversations(next)}>
          Older conversations
        </button>
      )}
    </nav>
  );
}
