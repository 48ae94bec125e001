"""The schema. `python -m server.graph.schema > docs/schema.graphql` writes it down."""

import sys
from collections.abc import Iterator
from typing import Any

import strawberry
from graphql import GraphQLError
from strawberry.extensions import SchemaExtension
from strawberry.types import ExecutionContext

from server.graph.content import PART_TYPES
from server.graph.context import Context
from server.graph.errors import ERRORS_MAX, shown
from server.graph.events import KINDS
from server.graph.query import Query
from server.graph.scalars import CONFIG
from server.graph.subscription import Subscription


class ShownErrors(SchemaExtension):
    """Lets no error out as it was raised."""

    def on_operation(self) -> Iterator[None]:
        yield
        self._show(self.execution_context.result)

    def on_stream_result(self, result: Any) -> Iterator[None]:
        self._show(result)
        yield

    def _show(self, result: Any) -> None:
        if getattr(result, "errors", None):
            context: Context = self.execution_context.context
            result.errors = [shown(error, context.request_id) for error in result.errors[:ERRORS_MAX]]


class Schema(strawberry.Schema):
    """Strawberry's, which would write every refusal to the log."""

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Leaves recording to `shown`."""


def build_schema() -> Schema:
    return Schema(query=Query, subscription=Subscription, types=[*PART_TYPES, *KINDS.values()], extensions=[ShownErrors], config=CONFIG)


if __name__ == "__main__":
    sys.stdout.write(build_schema().as_str() + "\n")
