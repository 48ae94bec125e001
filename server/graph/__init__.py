"""GraphQL: conversations and answers as a graph, with queries, mutations and subscriptions."""
