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
from server.stream.follow import follow as follow_feed


async def get(services: Services, caller: Caller, generation_id: str) -> LiveGeneration:
    """A generation as of now; raises NotFound."""
    generation = await _read(services, caller, generation_id)
    return (await with_content(services, [generation]))[0]


async def with_content(services: Services, generations: list[Generation]) -> list[LiveGeneration]:
    """These generations with everything written so far, in one round trip."""
    return await live_generations(services.redis, services.settings.redis.key_prefix, generations)


async def cancel(
    services: Services, caller: Caller, generation_id: str, *, wait_s: float
) -> Generation:
    """Stops a generation and waits up to `wait_s` for its end; idempotent. Raises NotFound."""
    generation = await services.database.write(request_cancel, generation_id, caller.account_id)
    if generation.status.terminal:
        return generation
    await stop(services, generation)
    await _wait_for_end(services, generation, wait_s)
    return await _read(services, caller, generation_id)


async def stop(services: Services, generation: Generation) -> None:
    """Ends a generation whose cancellation is committed: here, or through its owner."""
    if generation.owner is None:
        await services.settler.cancel(generation.id)
    else:
        await services.queue.request_stop(generation.owner, generation.id)


async def follow(
    services: Services,
    caller: Caller,
    generation_id: str,
    *,
    after_seq: int = 0,
    snapshot: bool = False,
) -> AsyncGenerator[Batch | None, None] | None:
    """The events after a number, first those of the past, then live ones, up to the terminal one.

    With `snapshot` the first event is the content so far, and `after_seq` is ignored. None stands
    for a heartbeat among the batches, and for the whole stream where the reader has seen its end.
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
    """The same for a generation that was just read. Raises InvalidCursor."""
    if generation.status.terminal:
        if after_seq == generation.seq:
            return None
        if after_seq > generation.seq:
            raise InvalidCursor(
                f"This answer ended with event {generation.seq}; {after_seq} is beyond it."
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
