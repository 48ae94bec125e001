"""Operations: queries, mutations and subscriptions, run alike for every transport.

Strawberry validates a subscription, which is then run here: its source gives events that many
subscribers share, and what is made of them is shared too (see `Encoder`).
"""

from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Sequence
from contextlib import aclosing
from inspect import isawaitable
from typing import Any, Final, NamedTuple, TypeVar

from graphql import ExecutionResult as CoreResult
from graphql import GraphQLError
from graphql.execution import Executor, create_source_event_stream
from strawberry import Schema
from strawberry.exceptions import MissingQueryError
from strawberry.extensions import SchemaExtension
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.types import ExecutionResult
from strawberry.types.graphql import OperationType

from server.errors import Refused, Unreadable
from server.graph.context import Context
from server.graph.encoding import (
    SLICE_EVENTS,
    Encoders,
    EventBatch,
    OperationRequest,
    encoded,
    encoded_errors,
)
from server.graph.errors import PATH
from server.serve.refusals import log_refusal

F = TypeVar("F")

_EVERY_TYPE: Final = frozenset(OperationType)
_SINGLE_RESULT: Final = frozenset({OperationType.QUERY, OperationType.MUTATION})
_NO_OPERATION: Final = (CannotGetOperationTypeError, MissingQueryError)


class NotRun(Exception):
    """The operation was refused, or its stream cannot continue; `errors` is JSON for the caller.

    `codes` are the values of `extensions.code`.
    """

    def __init__(self, errors: Sequence[GraphQLError], context: Context) -> None:
        self.errors = encoded_errors(errors, context)
        super().__init__(self.errors.decode())
        self.codes = [(error.extensions or {}).get("code") for error in errors]


class BrokenOff(Exception):
    """The stream stops between two events before its end: the client may resume it."""


class Begun(ExecutionResult):
    """Takes the place of a result: a subscription that was found valid."""

    def __init__(self, executor: Executor[Any]) -> None:
        super().__init__(data=None, errors=None)
        self.executor = executor


class Subscribed(NamedTuple):
    """A valid subscription."""

    request: OperationRequest
    context: Context
    executor: Executor[Any]


class Subscribing(SchemaExtension):
    """Keeps Strawberry from running subscriptions itself."""

    def on_execute(self) -> Iterator[None]:
        running = self.execution_context
        if running.operation_type is OperationType.SUBSCRIPTION:
            schema: Any = running.schema
            executor = schema.execution_context_class.build(
                schema._schema,  # noqa: SLF001  Strawberry exposes graphql-core's schema nowhere else
                running.graphql_document,
                context_value=running.context,
                raw_variable_values=running.variables,
                operation_name=running.operation_name,
            )
            running.result = (
                Begun(executor)
                if isinstance(executor, Executor)
                else ExecutionResult(data=None, errors=executor)
            )
        yield


class _Failed(Exception):
    """graphql-core refused to start a subscription, with these errors."""

    def __init__(self, errors: Sequence[GraphQLError]) -> None:
        super().__init__()
        self.errors = errors


class Operations:
    """Runs the operations of this process."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._encoders = Encoders()

    async def result(self, request: OperationRequest, context: Context) -> bytes:
        """The result of a query or a mutation as JSON.

        Raises NotRun for a refused operation, Unreadable for a subscription.
        """
        try:
            return encoded(await self._run(request, context, _SINGLE_RESULT), context)
        except InvalidOperationTypeError:
            detail = (
                "A subscription has many results: accept text/event-stream, or use a WebSocket."
            )
            raise Unreadable("stream_required", detail) from None
        except _NO_OPERATION as fault:
            raise Unreadable("invalid_document", _reason(fault)) from None

    async def results(
        self, request: OperationRequest, context: Context, wrap: Callable[[list[bytes]], F]
    ) -> AsyncGenerator[F | None, None]:
        """The results of an operation in batches; None where a heartbeat is due.

        `wrap` turns results, which are JSON, into what a transport sends. It must be one function
        per transport, because what it made is shared. Raises NotRun and BrokenOff.
        """
        started = await self.start(request, context)
        if isinstance(started, bytes):
            yield wrap([started])
            return
        async with aclosing(self.events(started, wrap)) as batches:
            async for results in batches:
                yield results

    async def start(self, request: OperationRequest, context: Context) -> "bytes | Subscribed":
        """The result of a query or a mutation as JSON; a subscription is only validated.

        Raises NotRun.
        """
        try:
            result = await self._run(request, context, _EVERY_TYPE)
        except _NO_OPERATION as fault:
            error = GraphQLError(_reason(fault), extensions={"code": "invalid_document"})
            raise NotRun([error], context) from None
        if isinstance(result, Begun):
            return Subscribed(request, context, result.executor)
        return encoded(result, context)

    async def events(
        self, subscribed: "Subscribed", wrap: Callable[[list[bytes]], F]
    ) -> AsyncGenerator[F | None, None]:
        """The results of a subscription, as `results` gives them. Raises NotRun and BrokenOff."""
        request, context, executor = subscribed
        try:
            encoder = self._encoders.get(request, executor)
            async with aclosing(await _source(executor)) as source:
                async for batch in source:
                    if batch is None:
                        yield None
                        continue
                    for start in range(0, len(batch.events), SLICE_EVENTS):
                        made = encoder.made(batch, start, wrap)
                        yield await encoder.make(batch, start, wrap) if made is None else made
        except Exception as error:  # it ends the stream; faults of ours are logged when presented
            raise _why(error, context) from error
        if context.services.feeds.stopping:
            raise BrokenOff

    async def _run(
        self, request: OperationRequest, context: Context, types: Collection[OperationType]
    ) -> ExecutionResult:
        result = await self._schema.execute(
            request.query,
            variable_values=request.variables,
            context_value=context,
            operation_name=request.operation_name,
            allowed_operation_types=types,
        )
        refused = result.data is None and not any(error.path for error in result.errors or ())
        if refused and not isinstance(result, Begun):
            raise NotRun(result.errors or [], context)
        return result


async def _source(executor: Executor[Any]) -> AsyncGenerator[EventBatch[Any] | None, None]:
    """What a subscription's resolver yields."""
    source: Any = create_source_event_stream(executor)
    if isawaitable(source):
        source = await source
    if isinstance(source, CoreResult):
        raise _Failed(source.errors or [])
    given: AsyncGenerator[EventBatch[Any] | None, None] = source
    return given


def _reason(fault: Exception) -> str:
    """Why a document names no operation to run."""
    if isinstance(fault, CannotGetOperationTypeError):
        return f"{fault.as_http_error_reason().rstrip('.')}."
    return "The document is missing."


def _why(error: Exception, context: Context) -> NotRun | BrokenOff:
    """What an error means to a subscriber: where a service is unavailable, it is to come back."""
    if isinstance(error, Refused) and error.status >= 500:
        log_refusal(error, context.request_id, PATH)
        return BrokenOff()
    if isinstance(error, _Failed):
        return NotRun(error.errors, context)
    return NotRun([GraphQLError(str(error), original_error=error)], context)
