"""Encoding: executes a document on events once for all subscribers that request the same."""

import asyncio
import re
from collections.abc import Callable, Hashable, Sequence
from hashlib import sha256
from inspect import isawaitable
from typing import Any, Final, Generic, NamedTuple, TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

import orjson
from graphql import ExecutionResult as CoreResult
from graphql import FieldNode, GraphQLError, OperationDefinitionNode, VariableNode
from graphql.execution import Executor, execute_subscription_event
from strawberry.types import ExecutionResult

from server.errors import Unreadable
from server.graph.context import Context
from server.graph.errors import ERRORS_MAX, present_error
from server.stream.feed import Batch

T = TypeVar("T")
F = TypeVar("F")

SLICE_EVENTS: Final = 64
"""How many events are executed without a pause, in about 4 ms."""

KEPT_EVENTS: Final = 256
KEPT_BATCHES: Final = 4
"""How many batches an encoder keeps results of; live subscribers share the newest."""


_MEMBERS: Final = (
    ("variables", dict, "an object"),
    ("operationName", str, "a string"),
    ("extensions", dict, "an object"),
)


class OperationRequest(NamedTuple):
    """The operation that a client requests."""

    query: str
    variables: dict[str, Any] | None
    operation_name: str | None

    @classmethod
    def parse(cls, body: dict[str, Any]) -> "OperationRequest":
        """The operation in a request's body or a message's payload; raises Unreadable."""
        if not isinstance(body.get("query"), str):
            raise Unreadable("invalid_body", "query: must be a string.")
        for name, type, expected in _MEMBERS:
            if body.get(name) is not None and not isinstance(body[name], type):
                raise Unreadable("invalid_body", f"{name}: must be {expected}.")
        return cls(body["query"], body.get("variables"), body.get("operationName"))


class EventBatch(NamedTuple, Generic[T]):
    """Events of a subscription. `resolve` turns one into an object of the schema; None skips it.

    `source` is the feed's batch of these events; all subscribers of one encoder share its results.
    It is None for events of one subscriber. Then `key` may identify an event, and events with equal
    keys have equal results.
    """

    events: Sequence[T]
    resolve: Callable[[T], object | None]
    source: Batch | None
    key: Callable[[T], Hashable | None] = lambda _event: None


class Encoder:
    """Executes one document on events, for all subscriptions with it and the same variables.

    It owns the results that it shares: they are freed with it, with their batch, or when newer
    batches take their place, whichever is first.
    """

    def __init__(self, executor: Executor[Any]) -> None:
        self._executor = executor
        self._kept: dict[Hashable, bytes] = {}
        self._results: WeakKeyDictionary[Batch, dict[tuple[Any, int], Any]] = WeakKeyDictionary()

    def cached(
        self, batch: EventBatch[Any], start: int, wrap: Callable[[list[bytes]], F]
    ) -> F | None:
        """The results of a slice of events, if `encode` has made them and they are still kept."""
        if batch.source is None or (results := self._results.get(batch.source)) is None:
            return None
        found: F | None = results.get((wrap, start))
        return found

    def _keep(self, batch: Batch, slice_of: tuple[Any, int], results: object) -> None:
        if batch not in self._results and len(self._results) >= KEPT_BATCHES:
            del self._results[next(iter(self._results))]  # the oldest
        self._results.setdefault(batch, {})[slice_of] = results

    async def encode(
        self, batch: EventBatch[Any], start: int, wrap: Callable[[list[bytes]], F]
    ) -> F:
        """The results of a slice of events, formatted by `wrap`, and kept for other subscribers."""
        if start:
            await asyncio.sleep(0)  # lets other tasks run
        payloads = [
            payload
            for event in batch.events[start : start + SLICE_EVENTS]
            if (payload := await self._payload(batch, event))
        ]
        results = wrap(payloads)
        if batch.source is not None:
            self._keep(batch.source, (wrap, start), results)
        return results

    async def _payload(self, batch: EventBatch[Any], event: Any) -> bytes | None:
        key = batch.key(event)
        if key is None:
            return await self._result(batch.resolve(event))
        payload = self._kept.get(key)
        if payload is None and (payload := await self._result(batch.resolve(event))) is not None:
            if len(self._kept) >= KEPT_EVENTS:
                self._kept.clear()
            self._kept[key] = payload
        return payload

    async def _result(self, root: object | None) -> bytes | None:
        if root is None:
            return None
        result: Any = execute_subscription_event(self._executor.build_per_event_executor(root))
        if isawaitable(result):
            result = await result
        return encoded(result, self._executor.context_value)


class Encoders:
    """The encoders that are in use in this process."""

    def __init__(self) -> None:
        self._encoders: WeakValueDictionary[bytes, Encoder] = WeakValueDictionary()

    def get(self, request: OperationRequest, executor: Executor[Any]) -> Encoder:
        """The encoder for subscriptions with this document and variables, except `after`."""
        after_names = _after_variables(request.query, executor.operation)
        variables = {
            name: value
            for name, value in (request.variables or {}).items()
            if name not in after_names
        }
        account_id = executor.context_value.caller.account_id
        same = [
            account_id,
            request.query,
            executor.operation.name and executor.operation.name.value,
            variables,
        ]
        key = sha256(orjson.dumps(same, option=orjson.OPT_SORT_KEYS)).digest()
        encoder = self._encoders.get(key)
        if encoder is None:
            encoder = self._encoders[key] = Encoder(executor)
        return encoder


def _after_variables(query: str, operation: OperationDefinitionNode) -> set[str]:
    """Variables that are used only as `after`, so that results do not depend on them."""
    fields = [node for node in operation.selection_set.selections if isinstance(node, FieldNode)]
    values = [
        argument.value
        for field in fields
        for argument in field.arguments or ()
        if argument.name.value == "after"
    ]
    names = {value.name.value for value in values if isinstance(value, VariableNode)}
    # One occurrence is the declaration, the other one the argument.
    return {name for name in names if len(re.findall(rf"\$\s*{name}\b", query)) == 2}


def encoded(result: ExecutionResult | CoreResult, context: Context) -> bytes:
    """A result as JSON."""
    if not result.errors:
        return orjson.dumps({"data": result.data})
    return orjson.dumps({"data": result.data, "errors": _formatted(result.errors, context)})


def encoded_errors(errors: Sequence[GraphQLError], context: Context) -> bytes:
    """Errors as JSON, as the caller may see them."""
    return orjson.dumps(_formatted(errors, context))


def _formatted(errors: Sequence[GraphQLError], context: Context) -> list[Any]:
    return [present_error(error, context.request_id).formatted for error in errors[:ERRORS_MAX]]
