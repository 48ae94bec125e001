"""Generations: reading one, following its events, and cancelling it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

from server.errors import InvalidCursor
from server.history.generations import readable_generation, request_cancel
from server.history.tables import Generation
from server.identity.callers import Caller
from server.lifecycle.row_events import queued_event, snapshot_event
from server.lifecycle.written import LiveGeneration
from server.lifecycle.written import with_content as live_generations
from server.resources import Services
from server.stream.feed import Batch
from server.stream.feed import follow as follow_feed


async def get(services: Services, caller: Caller, generation_id: str) -> LiveGeneration:
    """A generation in its current state; raises NotFound."""
    generation = await _read(services, caller, generation_id)
    return (await with_content(services, [generation]))[0]


async def with_content(services: Services, generations: list[Generation]) -> list[LiveGeneration]:
    """These generations with their content so far, in one round trip."""
    return await live_generations(services.redis, services.settings.redis.key_prefix, generations)


async def cancel(
    services: Services, caller: Caller, generation_id: str, *, wait_s: float
) -> Generation:
    """Stops a generation and waits up to `wait_s` for its end; idempotent. Raises NotFound."""
    generation = await services.database.write(request_cancel, generation_id, caller.account_id)
    if generation.status.terminal:
        return generation
    await stop(services, [generation])
    await _wait_for_end(services, generation, wait_s)
    return await _read(services, caller, generation_id)


async def stop(services: Services, generations: list[Generation]) -> None:
    """Ends generations whose cancellation is committed, here or in their owners' processes.

    Both at the same time: while Redis hangs, each takes as long as its time-out.
    """
    owned = [(each.owner, each.id) for each in generations if each.owner is not None]
    requesting = asyncio.create_task(services.queue.request_stops(owned))
    try:
        await services.settler.cancel([each.id for each in generations if each.owner is None])
    finally:
        await requesting


async def follow(
    services: Services,
    caller: Caller,
    generation_id: str,
    *,
    after_seq: int = 0,
    snapshot: bool = False,
) -> AsyncGenerator[Batch | None, None] | None:
    """The events after `after_seq`: past ones, then live ones, up to the terminal one.

    With `snapshot`, the first event is a snapshot, and `after_seq` is ignored. A batch that is None
    is a heartbeat. Returns None if the reader has seen the terminal event.
    Raises NotFound and InvalidCursor.
    """
    generation = await _read(services, caller, generation_id)
    if not snapshot:
        return follow_row(services, generation, after_seq=after_seq)
    [live] = await with_content(services, [generation])
    first = snapshot_event(*live)
    batches = follow_feed(services.feeds, generation.id, queued_event(generation), first.seq)
    return _after(Batch([first]), batches)


def follow_row(
    services: Services, generation: Generation, *, after_seq: int
) -> AsyncGenerator[Batch | None, None] | None:
    """Follows a generation that was just read, see `follow`. Raises InvalidCursor."""
    if generation.status.terminal:
        if after_seq == generation.seq:
            return None
        if after_seq > generation.seq:
            raise InvalidCursor(
                f"The cursor {after_seq} is beyond the last event of this answer, {generation.seq}."
            )
    return follow_feed(services.feeds, generation.id, queued_event(generation), after_seq)


async def _after(
    first: Batch, batches: AsyncGenerator[Batch | None, None]
) -> AsyncGenerator[Batch | None, None]:
    yield first
    async with aclosing(batches):
        async for batch in batches:
            yield batch


async def _read(services: Services, caller: Caller, generation_id: str) -> Generation:
    return await services.database.read(readable_generation, generation_id, caller.account_id)


async def _wait_for_end(services: Services, generation: Generation, wait_s: float) -> None:
    """Returns when the answer has ended, or after `wait_s`."""
    batches = follow_feed(services.feeds, generation.id, queued_event(generation), 0)
    with suppress(TimeoutError):
        async with asyncio.timeout(wait_s), aclosing(batches):
            async for _batch in batches:
                pass
