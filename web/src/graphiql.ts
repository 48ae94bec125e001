// GraphiQL: a page to read the schema and run operations, including subscriptions. It and React, which
// only this page uses, are the bundles that their packages ship: to make them again from their parts
// would take most of the time of a build.
import { createGraphiQLFetcher, type Fetcher } from "@graphiql/toolkit";
import "graphiql/graphiql.css";
import { type DocumentNode, parse } from "graphql";
import { type Client, createClient } from "graphql-ws";

import graphiqlUrl from "../node_modules/graphiql/graphiql.min.js?url";
import reactUrl from "../node_modules/react/umd/react.production.min.js?url";
import reactDomUrl from "../node_modules/react-dom/umd/react-dom.production.min.js?url";
import "./graphiql.css";

interface GraphiQLOptions {
  fetcher: Fetcher;
  defaultQuery: string;
  shouldPersistHeaders: boolean;
}

// What the bundles define.
declare const React: { createElement(type: unknown, options: GraphiQLOptions): unknown };
declare const ReactDOM: { createRoot(element: Element): { render(node: unknown): void } };
declare const GraphiQL: unknown;

const BASE = document.baseURI;
const ADDRESS = new URL("graphql", BASE).href;
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
  const session = await fetch(new URL("api/session", BASE));
  if (session.status === 401) await fetch(new URL("api/session", BASE), { method: "POST" });
}

function load(url: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = url;
    script.onload = () => resolve();
    script.onerror = () => reject(new Error(`${url} could not be loaded.`));
    document.head.append(script);
  });
}

const element = document.getElementById("graphiql");
if (element) {
  await signIn().catch(() => undefined); // API keys work without a session
  for (const url of [reactUrl, reactDomUrl, graphiqlUrl]) await load(url); // each needs the ones before
  const options = { fetcher, defaultQuery: FIRST_QUERY, shouldPersistHeaders: false };
  ReactDOM.createRoot(element).render(React.createElement(GraphiQL, options));
}
