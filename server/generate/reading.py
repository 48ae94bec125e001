"""Reading the current content of a generation, stopping it, and waiting for its end."""

import asyncio
from contextlib import aclosing, suppress

from redis.asyncio import Redis
from redis.exceptions import RedisError

from server.generate.endings import queued_event
from server.generate.queue import Queue
from server.generate.settling import Settler
from server.history.generations import Written
from server.history.tables import Generation
from server.logs import log
from server.stream.content import Content
from server.stream.feed import Feeds
from server.stream.follow import follow
from server.stream.log import log_keys, read_logs

LIVE_EVENTS_MAX = 100_000
WAIT_DEFAULT_S, WAIT_MAX_S = 2.0, 30.0


async def written_so_far(redis: Redis, key_prefix: str, generation: Generation) -> Written:
    """The content including events after SQL's checkpoint; the checkpoint while Redis is away."""
    [written] = await all_written_so_far(redis, key_prefix, [generation])
    return written


async def all_written_so_far(
    redis: Redis, key_prefix: str, generations: list[Generation]
) -> list[Written]:
    """The same of several generations, in one round trip."""
    going_on = [generation for generation in generations if not generation.status.terminal]
    newer = {}
    if going_on:
        wanted = [(log_keys(key_prefix, generation.id), generation.seq) for generation in going_on]
        try:
            logs = await read_logs(redis, wanted, LIVE_EVENTS_MAX)
        except RedisError as error:
            log.warning("redis_away", doing="snapshot", reason=str(error))
        else:
            newer = {
                generation.id: events for generation, events in zip(going_on, logs, strict=True)
            }
    written = []
    for generation in generations:
        content, seq = Content(generation.parts), generation.seq
        for event in newer.get(generation.id, ()):
            if not event.terminal:
                content.apply(event)
                seq = event.seq
        written.append(
            Written(content.parts(), seq)
            if seq != generation.seq
            else Written(generation.parts, seq)
        )
    return written


async def stop_now(settler: Settler, queue: Queue, generation: Generation) -> None:
    """Ends a generation whose cancellation is committed: by its owner, or here if it has none."""
    if generation.owner is None:
        await settler.cancel(generation.id)
    else:
        await queue.tell_to_stop(generation.owner, generation.id)


async def wait_for_end(feeds: Feeds, generation: Generation, wait_s: float) -> None:
    """Returns when the answer has ended, or after `wait_s`."""
    with suppress(TimeoutError):
        async with (
            asyncio.timeout(wait_s),
            aclosing(follow(feeds, generation.id, queued_event(generation), 0)) as batches,
        ):
            async for _batch in batches:
                pass
