// The parts of the page that speak GraphQL: search, undoing a deletion, API keys. Where the server has none of it, they are not offered.
import { signal } from "@preact/signals";
import { call } from "./api";
import type { Conversation } from "./state/shapes";

export interface Excerpt {
  text: string;
  match: boolean;
}

export interface Hit {
  conversation: { id: string; title: string };
  message: { id: string; role: string } | null;
  excerpt: Excerpt[];
}

export interface Hits {
  hits: Hit[];
  /** What leads to more; null where there are none. */
  next: string | null;
}

export interface Key {
  id: string;
  name: string;
  prefix: string;
  createdAt: string;
}

/** The names of what the server can be asked and told. */
export const offered = signal<ReadonlySet<string>>(new Set());

export class Refused extends Error {}

async function ask<T>(query: string, variables: object = {}): Promise<T> {
  const { data, errors } = await call<{ data?: T | null; errors?: { message: string }[] }>("POST", "/graphql", { query, variables });
  if (errors?.length || !data) throw new Refused(errors?.[0]?.message ?? "The server did not answer.");
  return data;
}

type Named = { fields: { name: string }[] } | null;

const namesOf = (type: Named): string[] => type?.fields.map(({ name }) => name) ?? [];

/** Finds out what the server offers. */
export async function discover(): Promise<void> {
  const fields = "{ fields { name } }";
  const of = (name: string) => `${name}: __type(name: "${name}") ${fields}`;
  try {
    const types = await ask<Record<"Query" | "Mutation" | "Account", Named>>(`{ ${of("Query")} ${of("Mutation")} ${of("Account")} }`);
    const account = namesOf(types.Account).map((name) => `account.${name}`);
    offered.value = new Set([...namesOf(types.Query), ...namesOf(types.Mutation), ...account]);
  } catch {
    offered.value = new Set(); // an older server, or one that does not say
  }
}

/** What is kept at the top, however old it is; nothing where the server does not say. */
export async function pinned(): Promise<Conversation[]> {
  if (!offered.value.has("conversations")) return [];
  const { conversations } = await ask<{ conversations: { edges: { node: Listed }[] } }>(
    "{ conversations(first: 100, filter: { pinned: true }) { edges { node { id title pinned archived model systemPrompt updatedAt } } } }",
  );
  return conversations.edges.map(({ node: { systemPrompt, updatedAt, ...rest } }) => ({
    ...{ ...rest, system_prompt: systemPrompt, updated_at: updatedAt, shown_message_id: null, active_generations: [] },
  }));
}

interface Listed extends Pick<Conversation, "id" | "title" | "pinned" | "archived" | "model"> {
  systemPrompt: string | null;
  updatedAt: string;
}

const search_page = 20;

export async function search(query: string, after: string | null): Promise<Hits> {
  const { search: found } = await ask<{
    search: { edges: { node: Hit }[]; pageInfo: { hasNextPage: boolean; endCursor: string | null } };
  }>(
    `query Search($query: String!, $first: Int, $after: String) {
      search(query: $query, first: $first, after: $after) {
        edges { node { conversation { id title } message { id role } excerpt { text match } } }
        pageInfo { hasNextPage endCursor }
      }
    }`,
    { query, first: search_page, after },
  );
  return {
    hits: found.edges.map(({ node }) => node),
    next: found.pageInfo.hasNextPage ? found.pageInfo.endCursor : null,
  };
}

export const restore = (id: string) =>
  ask("mutation Restore($input: RestoreConversationInput!) { restoreConversation(input: $input) { conversation { id } } }", {
    input: { id },
  });

/** A new key, with its secret, which is told this once. */
export async function createKey(name: string): Promise<{ secret: string; id: string }> {
  const { createApiKey } = await ask<{ createApiKey: { secret: string; apiKey: { id: string } } }>(
    "mutation NewKey($input: CreateApiKeyInput!) { createApiKey(input: $input) { secret apiKey { id } } }",
    { input: { name } },
  );
  return { secret: createApiKey.secret, id: createApiKey.apiKey.id };
}

/** The account's keys; null where the server does not list them. */
export async function keys(): Promise<Key[] | null> {
  if (!offered.value.has("account.apiKeys")) return null;
  const { viewer } = await ask<{ viewer: { account: { apiKeys: Key[] } } }>(
    "{ viewer { account { apiKeys { id name prefix createdAt } } } }",
  );
  return viewer.account.apiKeys;
}

export const revokeKey = (id: string) =>
  ask("mutation Revoke($input: RevokeApiKeyInput!) { revokeApiKey(input: $input) { apiKey { id } } }", { input: { id } });
