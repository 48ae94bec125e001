"""The content of answers so far: the checkpoint in SQL, and later events from the log."""

from collections.abc import Sequence
from typing import NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from server.history.contents import StoredContent
from server.history.generations import Written
from server.history.tables import Generation
from server.logs import log
from server.stream.content import Content, DamagedEvent
from server.stream.events import JUMPS, Event
from server.stream.log import log_keys, read_logs

LIVE_EVENTS_MAX = 100_000


class LiveGeneration(NamedTuple):
    """A generation and its content so far."""

    generation: Generation
    written: Written


async def with_content(
    redis: Redis, key_prefix: str, generations: Sequence[Generation]
) -> list[LiveGeneration]:
    """These generations with their content so far, in one round trip."""
    written = await written_so_far(redis, key_prefix, generations)
    return [LiveGeneration(*each) for each in zip(generations, written, strict=True)]


async def written_so_far(
    redis: Redis, key_prefix: str, generations: Sequence[Generation | StoredContent]
) -> list[Written]:
    """The content of these generations, in one round trip; without Redis, the checkpoints."""
    active = [generation for generation in generations if not generation.status.terminal]
    newer: dict[str, list[Event]] = {}
    if active:
        wanted = [(log_keys(key_prefix, each.id), each.seq) for each in active]
        try:
            logs = await read_logs(redis, wanted, LIVE_EVENTS_MAX)
        except RedisError as error:
            log.warning("redis_unavailable", doing="snapshot", reason=str(error))
        else:
            newer = {each.id: events for each, events in zip(active, logs, strict=True)}
    return [_written(generation, newer.get(generation.id, [])) for generation in generations]


def _written(generation: Generation | StoredContent, newer: list[Event]) -> Written:
    """The content up to the first damaged event, and from where the answer starts over."""
    content, seq, damaged = Content(generation.parts), generation.seq, False
    for event in newer:
        damaged = damaged and event.type not in JUMPS
        if event.terminal or damaged:
            continue
        try:
            content.apply(event)
        except DamagedEvent as error:
            log.warning("log_damaged", generation=generation.id, reason=str(error))
            damaged = True
        else:
            seq = event.seq
    return Written(content.parts() if seq != generation.seq else generation.parts, seq)
