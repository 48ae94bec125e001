"""Generations: their snapshot, their event stream, and stopping them."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from server.api.http import Json, event_cursor, flag
from server.dialects import native
from server.errors import Invalid, InvalidCursor
from server.event_stream import EventStream
from server.generate.endings import queued_event
from server.generate.reading import (
    WAIT_DEFAULT_S,
    WAIT_MAX_S,
    stop_now,
    wait_for_end,
    written_so_far,
)
from server.history.generations import Written, readable_generation, request_cancel, snapshot
from server.history.tables import Generation
from server.identity.callers import Caller
from server.identity.credentials import caller_of
from server.stream.events import Event, EventType, make_event
from server.stream.feed import Batch
from server.stream.follow import follow


async def show(request: Request) -> Response:
    """The snapshot of a generation, with everything that was said so far."""
    caller, resources = await caller_of(request), request.state.resources
    generation = await resources.database.read(
        readable_generation, request.path_params["id"], caller.account_id
    )
    return Json(snapshot(generation, await _written(request, generation)))


async def events(request: Request) -> Response:
    """Follows one generation from the reader's mark: past events first, then live, until its end."""
    caller, resources = await caller_of(request), request.state.resources
    from_snapshot = flag(request, "snapshot")
    mark = 0 if from_snapshot else event_cursor(request)
    generation = await resources.database.read(
        readable_generation, request.path_params["id"], caller.account_id
    )
    if not from_snapshot:
        return await stream_generation(request, caller, generation, mark, {})
    written = await _written(request, generation)
    seq = written.seq - 1 if generation.status.terminal else written.seq
    first = make_event(seq, EventType.SNAPSHOT, snapshot(generation, written))
    return await stream_generation(request, caller, generation, seq, {}, first=first)


async def cancel(request: Request) -> Response:
    """Stops a generation, waits up to `wait_s` for its end, and answers with its snapshot."""
    caller, resources = await caller_of(request), request.state.resources
    wait_s = _wait_s(request)
    generation = await resources.database.write(
        request_cancel, request.path_params["id"], caller.account_id
    )
    if not generation.status.terminal:
        await stop_now(resources.settler, resources.queue, generation)
        await wait_for_end(request.state.feeds, generation, wait_s)
        generation = await resources.database.read(
            readable_generation, generation.id, caller.account_id
        )
    return Json(snapshot(generation, await _written(request, generation)))


async def stream_generation(
    request: Request,
    caller: Caller,
    generation: Generation,
    mark: int,
    headers: dict[str, str],
    *,
    first: Event | None = None,
) -> Response:
    """The event stream of a generation for a reader at `mark`, which starts with `first` where that is given."""
    if generation.status.terminal and first is None:
        if mark == generation.seq:
            return Response(status_code=204)  # tells EventSource to stop asking
        if mark > generation.seq:
            raise InvalidCursor(
                f"This answer ended with event {generation.seq}; {mark} is beyond it."
            )
    batches = follow(request.state.feeds, generation.id, queued_event(generation), mark)
    if first is not None:
        batches = _after(first, batches)
    return EventStream(
        batches, native.encode_batch, request=request, caller=caller, headers=headers
    )


async def _after(
    first: Event, batches: AsyncGenerator[Batch | None, None]
) -> AsyncGenerator[Batch | None, None]:
    yield Batch([first])
    async with aclosing(batches):
        async for batch in batches:
            yield batch


async def _written(request: Request, generation: Generation) -> Written:
    resources = request.state.resources
    return await written_so_far(resources.redis, resources.settings.redis.key_prefix, generation)


def _wait_s(request: Request) -> float:
    text: Any = request.query_params.get("wait_s", WAIT_DEFAULT_S)
    try:
        wait_s = float(text)
        if 0 <= wait_s <= WAIT_MAX_S:
            return wait_s
    except ValueError:
        pass
    detail = f"a number of seconds from 0 to {WAIT_MAX_S:g} is allowed"
    raise Invalid(
        "invalid_request", f"wait_s: {detail}.", errors=[{"pointer": "wait_s", "detail": detail}]
    )
