"""Operations: queries, mutations and subscriptions, run in the same way for every transport.

Strawberry validates subscriptions, but they run here: subscribers share the events of their source,
and the results too (see `Encoder`).
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


class OperationRefused(Exception):
    """The operation is refused, or its stream cannot continue; `errors` is JSON for the caller.

    `codes` are the values of `extensions.code`.
    """

    def __init__(self, errors: Sequence[GraphQLError], context: Context) -> None:
        self.errors = encoded_errors(errors, context)
        super().__init__(self.errors.decode())
        self.codes = [(error.extensions or {}).get("code") for error in errors]


class StreamInterrupted(Exception):
    """The stream stops between two events before its end; the client can resume it."""


class ValidSubscription(ExecutionResult):
    """Replaces the result of a valid subscription."""

    def __init__(self, executor: Executor[Any]) -> None:
        super().__init__(data=None, errors=None)
        self.executor = executor


class PreparedSubscription(NamedTuple):
    """A valid subscription that has not started."""

    request: OperationRequest
    context: Context
    executor: Executor[Any]


class DeferSubscriptions(SchemaExtension):
    """Keeps Strawberry from running subscriptions."""

    def on_execute(self) -> Iterator[None]:
        running = self.execution_context
        if running.operation_type is OperationType.SUBSCRIPTION:
            schema: Any = running.schema
            executor = schema.execution_context_class.build(
                schema._schema,  # noqa: SLF001  graphql-core's schema is not public
                running.graphql_document,
                context_value=running.context,
                raw_variable_values=running.variables,
                operation_name=running.operation_name,
            )
            running.result = (
                ValidSubscription(executor)
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

        Raises OperationRefused for a refused operation, Unreadable for a subscription.
        """
        try:
            return encoded(await self._run(request, context, _SINGLE_RESULT), context)
        except InvalidOperationTypeError:
            detail = (
                "A subscription has many results: accept text/event-stream, or use a WebSocket."
            )
            raise Unreadable("stream_required", detail) from None
        except _NO_OPERATION as error:
            raise Unreadable("invalid_document", _reason(error)) from None

    async def results(
        self, request: OperationRequest, context: Context, wrap: Callable[[list[bytes]], F]
    ) -> AsyncGenerator[F | None, None]:
        """The results of an operation in batches; None where a heartbeat is due.

        `wrap` turns results, which are JSON, into the frames of a transport. It must be one
        function per transport, because frames are shared.

        Raises OperationRefused and StreamInterrupted.
        """
        started = await self.start(request, context)
        if isinstance(started, bytes):
            yield wrap([started])
            return
        async with aclosing(self.events(started, wrap)) as batches:
            async for results in batches:
                yield results

    async def start(
        self, request: OperationRequest, context: Context
    ) -> bytes | PreparedSubscription:
        """The result of a query or a mutation as JSON; a subscription is only validated.

        Raises OperationRefused.
        """
        try:
            result = await self._run(request, context, _EVERY_TYPE)
        except _NO_OPERATION as error:
            refusal = GraphQLError(_reason(error), extensions={"code": "invalid_document"})
            raise OperationRefused([refusal], context) from None
        if isinstance(result, ValidSubscription):
            return PreparedSubscription(request, context, result.executor)
        return encoded(result, context)

    async def events(
        self, subscription: PreparedSubscription, wrap: Callable[[list[bytes]], F]
    ) -> AsyncGenerator[F | None, None]:
        """The results of a subscription, as in `results`.

        Raises OperationRefused and StreamInterrupted.
        """
        request, context, executor = subscription
        try:
            encoder = self._encoders.get(request, executor)
            async with aclosing(await _source(executor)) as source:
                async for batch in source:
                    if batch is None:
                        yield None
                        continue
                    for start in range(0, len(batch.events), SLICE_EVENTS):
                        frames = encoder.cached(batch, start, wrap)
                        if frames is None:
                            frames = await encoder.encode(batch, start, wrap)
                        yield frames
        except Exception as error:  # it ends the stream; bugs are logged when presented
            raise _stream_error(error, context) from error
        if context.services.feeds.stopping:
            raise StreamInterrupted

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
        if refused and not isinstance(result, ValidSubscription):
            raise OperationRefused(result.errors or [], context)
        return result


async def _source(executor: Executor[Any]) -> AsyncGenerator[EventBatch[Any] | None, None]:
    """The batches that a subscription's resolver yields."""
    source: Any = create_source_event_stream(executor)
    if isawaitable(source):
        source = await source
    if isinstance(source, CoreResult):
        raise _Failed(source.errors or [])
    batches: AsyncGenerator[EventBatch[Any] | None, None] = source
    return batches


def _reason(error: Exception) -> str:
    """Why a document has no operation to run."""
    if isinstance(error, CannotGetOperationTypeError):
        return f"{error.as_http_error_reason().rstrip('.')}."
    return "The document is missing."


def _stream_error(error: Exception, context: Context) -> OperationRefused | StreamInterrupted:
    """The error for a subscriber, who can resume the stream if a service is unavailable."""
    if isinstance(error, Refused) and error.status >= 500:
        log_refusal(error, context.request_id, PATH)
        return StreamInterrupted()
    if isinstance(error, _Failed):
        return OperationRefused(error.errors, context)
    return OperationRefused([GraphQLError(str(error), original_error=error)], context)
