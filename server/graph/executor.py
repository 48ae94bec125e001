"""Execution: every operation, and every event of a subscription, has a budget and loaders."""

from typing import Any, ClassVar

import orjson
from graphql import GraphQLLeafType
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from server.graph.budget import RESPONSE_MAX_BYTES, ROWS_MAX, ResponseBudget
from server.graph.context import Context
from server.graph.errors import is_too_complex

SHORT_CHARS = 64
"""Text up to this length is counted in characters: measuring its bytes would take longer."""


class BoundedExecutor(StrawberryGraphQLCoreExecutionContext):
    """Executes operations whose responses have at most `response_max_bytes`.

    Every value of a response passes `complete_leaf_value`, so no field can be left out. Every event
    of a subscription is a response of its own.
    """

    response_max_bytes: ClassVar[int] = RESPONSE_MAX_BYTES
    rows_max: ClassVar[int] = ROWS_MAX

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.start_response()

    def build_per_event_executor(self, payload: Any) -> "BoundedExecutor":
        executor: Any = super().build_per_event_executor(payload)
        executor.start_response()
        return executor  # type: ignore[no-any-return]

    def start_response(self) -> None:
        """Gives the response its own budget and context."""
        self.budget = ResponseBudget(self.response_max_bytes, self.rows_max)
        if isinstance(self.context_value, Context):
            self.context_value = self.context_value.for_execution(self.budget)

    def complete_leaf_value(  # type: ignore[override]  # called as a method, though it is static
        self, return_type: GraphQLLeafType, result: Any
    ) -> Any:
        value = super().complete_leaf_value(return_type, result)
        self.budget.charge(_size_bytes(value))
        return value

    def build_response(self, data: dict[str, Any] | None) -> Any:
        """The response; if it is too large, only the error about that."""
        if isinstance(self.context_value, Context):
            self.context_value.forget()  # the executor has a reference to itself, which would keep all rows
        response: Any = super().build_response(data)
        if self.budget.exceeded:
            response.data = None
            response.errors = [each for each in response.errors if is_too_complex(each)][:1]
        return response


def _size_bytes(value: Any) -> int:
    """The size of a value as JSON, at least."""
    if isinstance(value, str):
        return len(value) if len(value) <= SHORT_CHARS else len(orjson.dumps(value))
    return len(orjson.dumps(value)) if isinstance(value, dict | list) else 1
