"""The budget of a response: how many bytes it may have, whatever the number of its fields.

The cost of a document (`server.graph.cost`) counts fields before they are resolved; the size of
their values is only known afterwards.
"""

from typing import Any, ClassVar, Final

import orjson
from graphql import GraphQLError, GraphQLLeafType
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

TOO_COMPLEX: Final = "document_too_complex"
RESPONSE_MAX_BYTES: Final = 16 * 1024 * 1024
SHORT_CHARS: Final = 64
"""Text up to this length is counted in characters: measuring its bytes would take longer."""


class ResponseBudget:
    """The bytes that are left for the values of one response."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = self._left_bytes = max_bytes

    @property
    def exceeded(self) -> bool:
        return self._left_bytes < 0

    def charge(self, size_bytes: int) -> None:
        """Counts bytes of the response; raises GraphQLError once there are too many."""
        self._left_bytes -= size_bytes
        if self._left_bytes < 0:
            raise GraphQLError(
                f"The response exceeds the limit of {self._max_bytes} bytes.",
                extensions={"code": TOO_COMPLEX, "limit": self._max_bytes},
            )


class BoundedExecutor(StrawberryGraphQLCoreExecutionContext):
    """Executes operations whose responses have at most `response_max_bytes`.

    Every value of a response passes `complete_leaf_value`, so no field can be left out. Every event
    of a subscription is a response of its own.
    """

    response_max_bytes: ClassVar[int] = RESPONSE_MAX_BYTES

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.budget = ResponseBudget(self.response_max_bytes)

    def build_per_event_executor(self, payload: Any) -> "BoundedExecutor":
        executor: Any = super().build_per_event_executor(payload)
        executor.budget = ResponseBudget(self.response_max_bytes)
        return executor  # type: ignore[no-any-return]

    def complete_leaf_value(  # type: ignore[override]  # called as a method, though it is static
        self, return_type: GraphQLLeafType, result: Any
    ) -> Any:
        value = super().complete_leaf_value(return_type, result)
        self.budget.charge(_size_bytes(value))
        return value

    def build_response(self, data: dict[str, Any] | None) -> Any:
        """The response; if it is too large, only the error about that."""
        response: Any = super().build_response(data)
        if self.budget.exceeded:
            response.data = None
            response.errors = [each for each in response.errors if _is_too_complex(each)][:1]
        return response


def _is_too_complex(error: GraphQLError) -> bool:
    return (error.extensions or {}).get("code") == TOO_COMPLEX


def _size_bytes(value: Any) -> int:
    """The size of a value as JSON, at least."""
    if isinstance(value, str):
        return len(value) if len(value) <= SHORT_CHARS else len(orjson.dumps(value))
    return len(orjson.dumps(value)) if isinstance(value, dict | list) else 1
