// GraphiQL: a page to read the schema and run operations, including subscriptions. Only this page
// uses React.
import { createGraphiQLFetcher, type Fetcher } from "@graphiql/toolkit";
import { GraphiQL } from "graphiql";
import "graphiql/graphiql.css";
import { type DocumentNode, parse } from "graphql";
import { type Client, createClient } from "graphql-ws";
import { createElement } from "react";
import { createRoot } from "react-dom/client";

import "./graphiql.css";

const ADDRESS = "/graphql";
const FIRST_QUERY = `# Operations run with the session of this browser. To use an API key, add this under Headers:
# { "Authorization": "Bearer tmk_…" }

query Me {
  viewer { account { id } user { email } }
}

# The events of an answer as they arrive. Set its id under Variables: { "id": "gen_…" }.
subscription Follow($id: ID!, $after: String) {
  generationEvents(id: $id, after: $after) {
    __typename
    cursor
    ... on GenerationTextDelta { text }
  }
}
`;

const sockets = new Map<string, Client>();

/**
 * The WebSocket client for this Authorization header; without one, the session of the browser
 * authenticates.
 */
function socketFor(authorization: string): Client {
  let socket = sockets.get(authorization);
  if (!socket) {
    const url = new URL(ADDRESS, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    socket = createClient({
      url: url.href,
      ...(authorization && { connectionParams: { authorization } }),
    });
    sockets.set(authorization, socket);
  }
  return socket;
}

/**
 * The parsed operation. GraphiQL's own lags behind the editor, and a subscription would be sent
 * over HTTP.
 */
function documentOf(query: string): { documentAST?: DocumentNode } {
  try {
    return { documentAST: parse(query) };
  } catch {
    return {};
  }
}

const fetcher: Fetcher = (operation, options) => {
  const named = Object.entries(options?.headers ?? {}).find(
    ([name]) => name.toLowerCase() === "authorization",
  );
  return createGraphiQLFetcher({
    url: ADDRESS,
    wsClient: socketFor(named ? String(named[1]) : ""),
  })(operation, {
    ...options,
    ...documentOf(operation.query),
  });
};

/** Opens a guest session if there is none and guests are allowed. */
async function signIn(): Promise<void> {
  const session = await fetch("/api/session");
  if (session.status === 401) await fetch("/api/session", { method: "POST" });
}

const place = document.getElementById("graphiql");
if (place) {
  await signIn().catch(() => undefined); // API keys work without a session
  createRoot(place).render(
    createElement(GraphiQL, { fetcher, defaultQuery: FIRST_QUERY, shouldPersistHeaders: false }),
  );
}
