// GraphQL operations: search, pinned conversations, undoing a deletion, API keys.
import { call } from "./api";
import type {
  CreateKeyResult,
  KeysResult,
  PinnedResult,
  RestoreResult,
  RevokeKeyResult,
  SearchResult,
} from "./state/api_types";
import type { Conversation } from "./state/shapes";

export type Hit = SearchResult["search"]["edges"][number]["node"];

export interface Hits {
  hits: Hit[];
  /** The cursor of the next page; null on the last one. */
  next: string | null;
}

export type Key = KeysResult["viewer"]["account"]["apiKeys"][number];

/** An error in a GraphQL response. */
export class GraphQLError extends Error {}

async function execute<T>(query: string, variables: object = {}): Promise<T> {
  const { data, errors } = await call<{ data?: T | null; errors?: { message: string }[] }>(
    "POST",
    "/graphql",
    { query, variables },
  );
  if (errors?.length || !data)
    throw new GraphQLError(errors?.[0]?.message ?? "The server returned no data.");
  return data;
}

/** The pinned conversations, however old they are. */
export async function pinned(): Promise<Conversation[]> {
  const { conversations } = await execute<PinnedResult>(/* GraphQL */ `
    query Pinned {
      conversations(first: 100, filter: { pinned: true }) {
        edges {
          node {
            id
            title
            pinned
            archived
            model
            systemPrompt
            updatedAt
          }
        }
      }
    }
  `);
  return conversations.edges.map(({ node: { systemPrompt, updatedAt, ...rest } }) => ({
    ...{
      ...rest,
      system_prompt: systemPrompt,
      updated_at: updatedAt,
      shown_message_id: null,
      active_generations: [],
    },
  }));
}

const search_page = 20;

export async function search(query: string, after: string | null): Promise<Hits> {
  const { search: found } = await execute<SearchResult>(
    /* GraphQL */ `
      query Search($query: String!, $first: Int, $after: String) {
        search(query: $query, first: $first, after: $after) {
          edges {
            node {
              conversation {
                id
                title
              }
              message {
                id
                role
              }
              excerpt {
                text
                match
              }
            }
          }
          pageInfo {
            hasNextPage
            endCursor
          }
        }
      }
    `,
    { query, first: search_page, after },
  );
  return {
    hits: found.edges.map(({ node }) => node),
    next: found.pageInfo.hasNextPage ? found.pageInfo.endCursor : null,
  };
}

export const restore = (id: string) =>
  execute<RestoreResult>(
    /* GraphQL */ `
      mutation Restore($input: RestoreConversationInput!) {
        restoreConversation(input: $input) {
          conversation {
            id
          }
        }
      }
    `,
    {
      input: { id },
    },
  );

/** Creates an API key. The secret is in this response only. */
export async function createKey(name: string): Promise<{ secret: string; id: string }> {
  const { createApiKey } = await execute<CreateKeyResult>(
    /* GraphQL */ `
      mutation CreateKey($input: CreateApiKeyInput!) {
        createApiKey(input: $input) {
          secret
          apiKey {
            id
          }
        }
      }
    `,
    { input: { name } },
  );
  return { secret: createApiKey.secret, id: createApiKey.apiKey.id };
}

/** The API keys of the account. */
export async function keys(): Promise<Key[]> {
  const { viewer } = await execute<KeysResult>(/* GraphQL */ `
    query Keys {
      viewer {
        account {
          apiKeys {
            id
            name
            prefix
            createdAt
          }
        }
      }
    }
  `);
  return viewer.account.apiKeys;
}

export const revokeKey = (id: string) =>
  execute<RevokeKeyResult>(
    /* GraphQL */ `
      mutation RevokeKey($input: RevokeApiKeyInput!) {
        revokeApiKey(input: $input) {
          apiKey {
            id
          }
        }
      }
    `,
    { input: { id } },
  );
