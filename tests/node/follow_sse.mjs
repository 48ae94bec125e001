// Follows a generation with graphql-sse: argv is the address and the generation's id, TIDEMARK_KEY the key. Prints each event as a line of JSON.
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
  variables.after = data.generationEvents.cursor; // sent again, as it is then, when the client connects again
  console.log(JSON.stringify(data.generationEvents));
}
client.dispose();
