"""The schema. `python -m server.graph.schema > docs/schema.graphql` writes it to a file."""

import sys

import strawberry
from graphql import GraphQLError
from strawberry.types import ExecutionContext

from server.graph.change_events import CHANGE_KINDS
from server.graph.content import PART_TYPES
from server.graph.events import KINDS
from server.graph.executor import BoundedExecutor
from server.graph.guards import Documents, Guard
from server.graph.mutation import Mutation
from server.graph.operations import DeferSubscriptions
from server.graph.query import Query
from server.graph.scalars import CONFIG
from server.graph.subscription import Subscription
from server.settings import GraphqlSettings


class Schema(strawberry.Schema):
    """The schema with its guards."""

    def __init__(self, settings: GraphqlSettings) -> None:
        documents = Documents()
        super().__init__(
            query=Query,
            mutation=Mutation,
            subscription=Subscription,
            types=[*PART_TYPES, *KINDS.values(), *CHANGE_KINDS],
            extensions=[
                lambda: Guard(self._schema, settings, documents),
                DeferSubscriptions,
            ],
            execution_context_class=BoundedExecutor,
            config=CONFIG,
        )

    def process_errors(
        self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None
    ) -> None:
        """Logs nothing: Strawberry would log every refusal. Bugs are logged elsewhere."""


def schema_text() -> str:
    """The schema in its own language."""
    return Schema(GraphqlSettings()).as_str() + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
