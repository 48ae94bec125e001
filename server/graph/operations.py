"""Operations: a query, a mutation or a subscription, run for whichever transport it came by.

A subscription is taken out of Strawberry's hands once it is found valid: its source gives events that many subscribers share, and what is
made of them is shared too (see `Encoder`).
"""

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from inspect import isawaitable
from typing import Any, TypeVar

from graphql import ExecutionResult as CoreResult
from graphql import GraphQLError
from graphql.execution import Executor, create_source_event_stream
from strawberry import Schema
from strawberry.exceptions import MissingQueryError
from strawberry.extensions import SchemaExtension
from strawberry.schema.exceptions import CannotGetOperationTypeError
from strawberry.types import ExecutionResult
from strawberry.types.graphql import OperationType

from server.errors import Refused
from server.graph.context import Context
from server.graph.encoding import SLICE_EVENTS, Asked, Encoders, Told, encoded, encoded_errors

F = TypeVar("F")

_EVERY_TYPE = frozenset(OperationType)


class NotRun(Exception):
    """The operation was refused, or its stream cannot go on; `errors` is JSON, as the caller may see it."""

    def __init__(self, errors: bytes) -> None:
        super().__init__(errors.decode())
        self.errors = errors


class BrokenOff(Exception):
    """The stream stops between two events and is not at its end: whoever comes back may go on."""


class Begun(ExecutionResult):
    """In place of a result: a subscription that was found valid."""

    def __init__(self, executor: Executor[Any]) -> None:
        super().__init__(data=None, errors=None)
        self.executor = executor


class Subscribing(SchemaExtension):
    """Keeps Strawberry from running subscriptions itself. The last of the extensions, so that what others do to the context is done."""

    def on_execute(self) -> Iterator[None]:
        running = self.execution_context
        if running.operation_type is OperationType.SUBSCRIPTION:
            schema: Any = running.schema
            executor = schema.execution_context_class.build(
                schema._schema,  # noqa: SLF001  Strawberry shows graphql-core's schema nowhere else
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
    """graphql-core refused to begin, with these errors."""

    def __init__(self, errors: Sequence[GraphQLError]) -> None:
        super().__init__()
        self.errors = errors


class Operations:
    """Runs the operations of this process."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._encoders = Encoders()

    async def answers(
        self, asked: Asked, context: Context, wrap: Callable[[list[bytes]], F]
    ) -> AsyncGenerator[F | None, None]:
        """The results of an operation, some at a time, as `wrap` makes them ready for a transport; None where a heartbeat is due.

        `wrap` takes results as JSON. It is one function per kind of transport: what it made is shared. Raises NotRun and BrokenOff.
        """
        result = await self._run(asked, context)
        if not isinstance(result, Begun):
            yield wrap([encoded(result, context)])
            return
        try:
            encoder = self._encoders.get(asked, result.executor)
            async with aclosing(await _source(result.executor)) as source:
                async for told in source:
                    if told is None:
                        yield None
                        continue
                    for start in range(0, len(told.events), SLICE_EVENTS):
                        made = encoder.made(told, start, wrap)
                        yield await encoder.make(told, start, wrap) if made is None else made
        except Exception as error:  # whatever it is, it ends the stream, and what is a fault of ours is recorded where it is shown
            raise _why(error, context) from error
        if context.feeds.stopping:
            raise BrokenOff

    async def _run(self, asked: Asked, context: Context) -> ExecutionResult:
        try:
            result = await self._schema.execute(
                asked.query,
                variable_values=asked.variables,
                context_value=context,
                operation_name=asked.operation_name,
                allowed_operation_types=_EVERY_TYPE,
            )
        except CannotGetOperationTypeError as fault:
            raise _invalid(f"{fault.as_http_error_reason().rstrip('.')}.", context) from None
        except MissingQueryError:
            raise _invalid("The document is missing.", context) from None
        if (
            not isinstance(result, Begun)
            and result.data is None
            and not any(error.path for error in result.errors or ())
        ):
            raise NotRun(encoded_errors(result.errors or [], context))
        return result


async def _source(executor: Executor[Any]) -> AsyncGenerator[Told[Any] | None, None]:
    """What a subscription's resolver gives."""
    source: Any = create_source_event_stream(executor)
    if isawaitable(source):
        source = await source
    if isinstance(source, CoreResult):
        raise _Failed(source.errors or [])
    given: AsyncGenerator[Told[Any] | None, None] = source
    return given


def _invalid(reason: str, context: Context) -> NotRun:
    return NotRun(
        encoded_errors([GraphQLError(reason, extensions={"code": "invalid_document"})], context)
    )


def _why(error: Exception, context: Context) -> NotRun | BrokenOff:
    """What an error means to who follows: where something is only away for now, coming back is all there is to do."""
    if isinstance(error, Refused) and error.status >= 500:
        return BrokenOff()
    errors = (
        error.errors
        if isinstance(error, _Failed)
        else [GraphQLError(str(error), original_error=error)]
    )
    return NotRun(encoded_errors(errors, context))
