// API keys: list, create (the secret is shown once), revoke.
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { copy } from "../clipboard";
import * as graphql from "../graphql";
import { report } from "../session";

export function ApiKeys() {
  const keys = useSignal<graphql.Key[] | null>(null);
  const made = useSignal<{ id: string; secret: string } | null>(null);
  const name = useRef<HTMLInputElement>(null);
  const read = async () => {
    keys.value = await graphql.keys().catch(() => null);
  };
  useEffect(() => void read(), []);
  const attempt = (work: () => Promise<unknown>) => work().then(read).catch(report);
  const create = (event: Event) => {
    event.preventDefault();
    const called = name.current!.value.trim();
    if (called)
      void attempt(async () => {
        made.value = await graphql.createKey(called);
        name.current!.value = "";
      });
  };
  const revoke = (id: string) => {
    if (made.value?.id === id) made.value = null;
    void attempt(() => graphql.revokeKey(id));
  };
  return (
    <section class="api-keys">
      <h3>API keys</h3>
      <p>An API key gives a program access to your account.</p>
      <ul>
        {keys.value?.map(({ id, name, prefix }) => (
          <li key={id}>
            <span class="title">{name}</span>
            <code translate={false}>{prefix}…</code>
            <button
              type="button"
              class="button"
              onClick={() => revoke(id)}
              aria-label={`Revoke ${name}`}
            >
              Revoke
            </button>
          </li>
        ))}
      </ul>
      {made.value && (
        <Secret
          made={made.value}
          onRevoke={keys.value ? undefined : () => revoke(made.value!.id)}
        />
      )}
      <form onSubmit={create}>
        <input
          ref={name}
          aria-label="Name of the new key"
          placeholder="Name, for example: backup script"
          maxLength={100}
          required
        />
        <button type="submit" class="button">
          Create key
        </button>
      </form>
    </section>
  );
}

function Secret({
  made: { secret },
  onRevoke,
}: {
  made: { secret: string };
  onRevoke?: (() => void) | undefined;
}) {
  return (
    <div class="secret" role="status">
      <p>Copy the key now. It is shown only once.</p>
      <code translate={false}>{secret}</code>
      <button
        type="button"
        class="button primary"
        onClick={(event) => copy(secret, event.currentTarget)}
      >
        Copy key
      </button>
      {onRevoke && (
        <button type="button" class="button" onClick={onRevoke}>
          Revoke
        </button>
      )}
    </div>
  );
}
