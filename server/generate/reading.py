"""Reading an answer that is still being written, and seeing to it that one stops: what every interface needs of a generation."""

from redis.asyncio import Redis
from redis.exceptions import RedisError

from server.generate.queue import Queue
from server.generate.settling import Settler
from server.history.generations import Written
from server.history.tables import Generation
from server.logs import log
from server.stream.content import Content
from server.stream.log import log_keys, read_logs

LIVE_EVENTS_MAX = 100_000


async def written_so_far(redis: Redis, key_prefix: str, generation: Generation) -> Written:
    """The content of a generation with what its log has beyond SQL's checkpoint; the checkpoint itself while Redis is away."""
    stored = Written(generation.parts, generation.seq)
    if generation.status.terminal:
        return stored
    keys = log_keys(key_prefix, generation.id)
    try:
        [newer] = await read_logs(redis, [(keys, generation.seq)], LIVE_EVENTS_MAX)
    except (RedisError, OSError, TimeoutError) as error:
        log.warning("redis_away", doing="snapshot", reason=str(error))
        return stored
    content, seq = Content(generation.parts), generation.seq
    for event in newer:
        if not event.terminal:
            content.apply(event)
            seq = event.seq
    return Written(content.parts(), seq)


async def stop_now(settler: Settler, queue: Queue, generation: Generation) -> None:
    """Sees to it that a generation whose cancellation is committed ends at once: by its owner, or, where it has none, right here."""
    if generation.owner is None:
        await settler.cancel(generation.id)
    else:
        await queue.tell_to_stop(generation.owner, generation.id)
