"""GraphQL: the same conversations and answers, as a graph that integrators query and subscribe to."""
