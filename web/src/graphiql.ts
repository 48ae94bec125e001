// GraphiQL: a page to read the schema and to try operations, subscriptions too. It is the only part with React, and no part of the chat page.
import { createGraphiQLFetcher, type Fetcher } from "@graphiql/toolkit";
import { GraphiQL } from "graphiql";
import "graphiql/graphiql.css";
import { type DocumentNode, parse } from "graphql";
import { type Client, createClient } from "graphql-ws";
import { createElement } from "react";
import { createRoot } from "react-dom/client";

import "./graphiql.css";

const ADDRESS = "/graphql";
const FIRST_QUERY = `# Operations are run as whoever is signed in here. To use an API key, write this under Headers:
# { "Authorization": "Bearer tmk_…" }

query Me {
  viewer { account { id } user { email } }
}

# The events of an answer as they come: put its id under Variables, as { "id": "gen_…" }.
subscription Follow($id: ID!, $after: String) {
  generationEvents(id: $id, after: $after) {
    __typename
    cursor
    ... on GenerationTextDelta { text }
  }
}
`;

const sockets = new Map<string, Client>();

/** The socket that signs in with this Authorization header; without one, the browser's session does. */
function socketFor(authorization: string): Client {
  let socket = sockets.get(authorization);
  if (!socket) {
    const url = new URL(ADDRESS, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    socket = createClient({ url: url.href, ...(authorization && { connectionParams: { authorization } }) });
    sockets.set(authorization, socket);
  }
  return socket;
}

/** What was written, taken apart; GraphiQL's own is late by a moment, and a subscription would go the wrong way. */
function documentOf(query: string): { documentAST?: DocumentNode } {
  try {
    return { documentAST: parse(query) };
  } catch {
    return {};
  }
}

const fetcher: Fetcher = (operation, options) => {
  const named = Object.entries(options?.headers ?? {}).find(([name]) => name.toLowerCase() === "authorization");
  return createGraphiQLFetcher({ url: ADDRESS, wsClient: socketFor(named ? String(named[1]) : "") })(operation, {
    ...options,
    ...documentOf(operation.query),
  });
};

/** Signs in as a guest where nobody is, and guests are welcome. */
async function signIn(): Promise<void> {
  const session = await fetch("/api/session");
  if (session.status === 401) await fetch("/api/session", { method: "POST" });
}

const place = document.getElementById("graphiql");
if (place) {
  await signIn().catch(() => undefined); // without a session there are still API keys
  createRoot(place).render(createElement(GraphiQL, { fetcher, defaultQuery: FIRST_QUERY, shouldPersistHeaders: false }));
}
