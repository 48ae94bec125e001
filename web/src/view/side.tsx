// The sidebar: search, conversations by day, the account.
import { useSignal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { isComposing } from "../composing";
import { go, openId } from "../conversation";
import { archive, change, list, readMore, remove, showsArchived } from "../conversations";
import { dialog, listOpen } from "../overlays";
import { query } from "../search";
import { currentSession } from "../session";
import { groups } from "../state/list";
import type { Conversation } from "../state/shapes";
import { Icon, Mark } from "./icon";
import { Menu } from "./menu";
import { Later } from "./later";
import { at } from "../root";

export const choose = (id: string | null) => (event: MouseEvent) => {
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
  event.preventDefault();
  listOpen.value = false;
  go(id);
};

export function Side() {
  const aside = useRef<HTMLElement>(null);
  useEffect(() => {
    const there = aside.current!.contains(document.activeElement);
    if (listOpen.value && !there) aside.current!.querySelector<HTMLElement>("a")?.focus();
  }, [listOpen.value]);
  return (
    <>
      <aside
        id="list"
        ref={aside}
        class={listOpen.value ? "side open" : "side"}
        aria-label="Conversations"
      >
        <div class="side-head">
          <a class="wordmark" href={at("/")} onClick={choose(null)} aria-label="Tidemark">
            <Mark /> Tidemark
          </a>
          <a
            class="icon-button"
            href={at("/")}
            onClick={choose(null)}
            aria-label="New chat"
            title="New chat (n)"
          >
            <Icon name="plus" />
          </a>
        </div>
        <label class="search">
          <Icon name="search" />
          <span class="unseen">Search conversations</span>
          <input
            id="search"
            dir="auto"
            type="search"
            placeholder="Search"
            autocomplete="off"
            value={query.value}
            onInput={(event) => (query.value = event.currentTarget.value)}
            onKeyDown={(event) =>
              event.key === "Escape" && ((query.value = ""), event.currentTarget.blur())
            }
          />
        </label>
        {query.value.trim() ? <Later part="Results" /> : <Conversations />}
        <Foot />
      </aside>
      <div class="veil" onClick={() => (listOpen.value = false)} />
    </>
  );
}

function Conversations() {
  const archived = showsArchived.value;
  const which = archived ? "archived" : "main";
  const shown = groups(list.value, archived, new Date());
  const next = list.value.next[which];
  return (
    <nav class="list" aria-label={archived ? "Archived conversations" : "Conversations"}>
      {archived && (
        <button type="button" class="text-button" onClick={() => (showsArchived.value = false)}>
          <Icon name="left" /> Archived
        </button>
      )}
      {shown.map(({ label, conversations }) => (
        <section key={label} aria-label={label}>
          <h2>{label}</h2>
          <ul>
            {conversations.map((each) => (
              <Row key={each.id} conversation={each} />
            ))}
          </ul>
        </section>
      ))}
      {next === null && shown.length === 0 && (
        <p class="none">{archived ? "Nothing is archived." : "Conversations appear here."}</p>
      )}
      {next && <More which={which} key={next} />}
      {!archived && next === null && (
        <button
          type="button"
          class="text-button quiet"
          onClick={() => (
            (showsArchived.value = true),
            list.value.next.archived === undefined && void readMore("archived")
          )}
        >
          Archived
        </button>
      )}
    </nav>
  );
}

/** Loads the next page when it scrolls into view. */
function More({ which }: { which: "main" | "archived" }) {
  const place = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    const watch = new IntersectionObserver(
      ([seen]) => seen?.isIntersecting && void readMore(which),
    );
    watch.observe(place.current!);
    return () => watch.disconnect();
  }, []);
  return (
    <button ref={place} type="button" class="text-button quiet" onClick={() => readMore(which)}>
      Older
    </button>
  );
}

function Row({ conversation }: { conversation: Conversation }) {
  const { id, title, pinned, archived, active_generations } = conversation;
  const renaming = useSignal(false);
  if (renaming.value)
    return <Rename conversation={conversation} onDone={() => (renaming.value = false)} />;
  const current = id === openId.value;
  const busy = active_generations.length > 0;
  return (
    <li class={current ? "row current" : "row"}>
      <a
        href={at(`/c/${id}`)}
        aria-current={current ? "page" : undefined}
        onClick={choose(id)}
        title={title}
      >
        <span class="title" dir="auto">
          {title || "Untitled"}
        </span>
        {busy && <span class="writing" role="img" aria-label="Answer in progress" />}
      </a>
      <Menu
        label={`Options for ${title || "Untitled"}`}
        items={[
          { label: pinned ? "Unpin" : "Pin", do: () => void change(id, { pinned: !pinned }) },
          { label: "Rename", do: () => (renaming.value = true) },
          { label: archived ? "Unarchive" : "Archive", do: () => void archive(id, !archived) },
          { label: "Delete", danger: true, do: () => void deleteHere(id) },
        ]}
      />
    </li>
  );
}

export async function deleteHere(id: string): Promise<void> {
  if (openId.peek() === id) go(null);
  await remove(id);
}

function Rename({
  conversation: { id, title },
  onDone,
}: {
  conversation: Conversation;
  onDone: () => void;
}) {
  const field = useRef<HTMLInputElement>(null);
  useLayoutEffect(() => field.current?.select(), []);
  const ended = useRef(false);
  const end = (saves: boolean) => {
    if (ended.current) return; // removing the field blurs it
    ended.current = true;
    const name = field.current!.value.trim();
    if (saves && name && name !== title) void change(id, { title: name });
    onDone();
  };
  return (
    <li class="row">
      <form onSubmit={(event) => (event.preventDefault(), end(true))}>
        <input
          ref={field}
          aria-label="Title"
          dir="auto"
          defaultValue={title}
          maxLength={200}
          onBlur={() => end(true)}
          onKeyDown={(event) =>
            event.key === "Escape" && !isComposing(event) && (event.stopPropagation(), end(false))
          }
        />
      </form>
    </li>
  );
}

function Foot() {
  const user = currentSession.value?.user;
  return (
    <div class="side-foot">
      <button type="button" class="text-button" onClick={() => (dialog.value = "settings")}>
        <Icon name="gear" />
        <span class="title">{user ? (user.email ?? "Signed in") : "Guest"}</span>
        <span class="unseen">: settings</span>
      </button>
    </div>
  );
}
