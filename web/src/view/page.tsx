// The page: the list of conversations, the open conversation, the message field.
import { useEffect } from "preact/hooks";
import { link, tree, writing } from "../conversation";
import { archive, change, list } from "../conversations";
import { announcement, dismiss, notices } from "../notices";
import { dialog, listOpen } from "../overlays";
import { signInError, signInQuestion, session } from "../session";
import { branch, earlier } from "../state/tree";
import { Composer } from "./composer";
import { Icon, Mark } from "./icon";
import { Menu } from "./menu";
import { ConnectionStatus } from "./connection_status";
import { Later } from "./later";
import { deleteHere, Side } from "./side";
import { Thread } from "./thread";
import { at } from "../root";

export function Page() {
  if (session.value !== "ready") return <StartScreen />;
  return (
    <div class="page">
      <Side />
      <div class="main">
        <Head />
        <Thread />
        <div class="foot">
          <Composer />
        </div>
      </div>
      <Notices />
      {dialog.value !== null && <Later part="Dialogs" failed={dialogFailed} />}
      <div class="unseen" role="status" aria-live="polite">
        {announcement.value}
      </div>
    </div>
  );
}

const dialogFailed = () => void (dialog.value = null);

function Head() {
  const { id, conversation } = tree.value;
  const known = (id && list.value.byId.get(id)) || conversation;
  const first = earlier(tree.value) ? undefined : branch(tree.value)[0]?.text.slice(0, 60);
  const title = id ? known?.title || first || "…" : "New chat";
  useEffect(() => {
    document.title = `${writing.value ? "… " : ""}${id ? `${title} · ` : ""}Tidemark`;
  }, [title, id, writing.value]);
  const items = [
    { label: "System prompt", do: () => void (dialog.value = "conversation") },
    ...(id && known
      ? [
          {
            label: known.pinned ? "Unpin" : "Pin",
            do: () => void change(id, { pinned: !known.pinned }),
          },
          {
            label: known.archived ? "Unarchive" : "Archive",
            do: () => void archive(id, !known.archived),
          },
          { label: "Delete", danger: true, do: () => void deleteHere(id) },
        ]
      : []),
    { label: "Keyboard shortcuts", do: () => void (dialog.value = "shortcuts") },
  ];
  return (
    <header class="head">
      <button
        type="button"
        class="icon-button burger"
        aria-label="Conversations"
        aria-controls="list"
        aria-expanded={listOpen.value}
        onClick={() => (listOpen.value = !listOpen.value)}
      >
        <Icon name="menu" />
      </button>
      {/* With a key of its own, it also changes where the browser has translated it. */}
      <h1 key={title} dir="auto">
        {title}
      </h1>
      <ConnectionStatus link={link.value} />
      <Menu label="Options" items={items} />
    </header>
  );
}

function Notices() {
  return (
    <div class="notices" role="status">
      {notices.value.map(({ id, text, act }) => (
        <div key={id} class="notice">
          <span>{text}</span>
          {act && (
            <button type="button" class="button" onClick={() => (dismiss(id), act.do())}>
              {act.label}
            </button>
          )}
          <button
            type="button"
            class="icon-button small"
            aria-label="Dismiss"
            onClick={() => dismiss(id)}
          >
            <Icon name="close" />
          </button>
        </div>
      ))}
    </div>
  );
}

/** Shown before the session is ready, or instead of the chat. */
function StartScreen() {
  return (
    <main class="threshold">
      <Mark />
      {session.value === "starting" && <p class="quiet">Opening…</p>}
      {session.value === "confirming" && (
        <Later part="SignIn" failed={() => signInQuestion.value?.answer(null)} />
      )}
      {session.value === "unreachable" && (
        <p role="status">The server cannot be reached. Trying again…</p>
      )}
      {session.value === "signed_out" && (
        <div role="status">
          <h1>You are not signed in</h1>
          {signInError.value && <p>{signInError.value}</p>}
          <p>
            Open your sign-in link. Each link works once; the operator of this server can create a
            new one with:
          </p>
          <pre tabIndex={0}>tidemark user link you@example.org</pre>
          <p>
            <a href={at("/")}>Try again</a>
          </p>
        </div>
      )}
    </main>
  );
}
