// Follows a generation with graphql-sse and prints each event as a line of JSON.
// Arguments: the address of the server and the generation's id. TIDEMARK_KEY: an API key.
import { createClient } from "graphql-sse";

const [address, id] = process.argv.slice(2);
const client = createClient({
  url: `${address}/graphql`,
  headers: { authorization: `Bearer ${process.env.TIDEMARK_KEY}` },
  retryAttempts: Infinity,
  retry: () => new Promise((resolve) => setTimeout(resolve, 100)),
});

const query = `subscription ($id: ID!, $after: String) {
  generationEvents(id: $id, after: $after) { __typename cursor seq ... on GenerationTextDelta { text } }
}`;
const variables = { id, after: null };
for await (const { data, errors } of client.iterate({ query, variables })) {
  if (errors) throw new Error(JSON.stringify(errors));
  variables.after = data.generationEvents.cursor; // sent again when the client reconnects
  console.log(JSON.stringify(data.generationEvents));
}
client.dispose();
