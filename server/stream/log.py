"""The token log of a generation in Redis: three scripts that write it, and reading it.

Two keys share the hash tag `{generation}`, so that they are on one node: a hash (`epoch seq closed
whole`) and a stream with entry ids `<seq>-0`. Events are published on a channel of the same name.
Numbers start after `queued`, which is computed from the row.
"""

from collections.abc import Sequence
from hashlib import sha1
from importlib import resources
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from server.logs import log
from server.stream.events import FIRST_SEQ, JUMPS, Event, decode_event

OPEN_WITHIN_S: Final = 5.0
"""How long after a claim or a beat its log may still be opened.

Less than the silence after which a successor may claim the generation.
"""


class Script(NamedTuple):
    """A Lua script and the digest Redis calls it by."""

    source: bytes
    sha: bytes


def _script(name: str) -> Script:
    source = resources.files("server.stream").joinpath("lua", f"{name}.lua").read_bytes()
    return Script(source, sha1(source, usedforsecurity=False).hexdigest().encode())


OPEN: Final = _script("open")
APPEND: Final = _script("append")
CLOSE: Final = _script("close")


class LogKeys(NamedTuple):
    """The names of one log in Redis."""

    state: bytes
    events: bytes
    channel: bytes


def log_keys(key_prefix: str, generation_id: str) -> LogKeys:
    """The names of the log of `generation_id`."""
    base = f"{key_prefix}{{{generation_id}}}"
    return LogKeys(f"{base}:state".encode(), f"{base}:events".encode(), f"{base}:tail".encode())


async def close_log(redis: Redis, keys: LogKeys, terminal: Event, retention_s: float) -> bool:
    """Closes the log of a settled generation, see `close_logs`. Raises RedisError."""
    [closed] = await close_logs(redis, [(keys, terminal)], retention_s)
    if isinstance(closed, RedisError):
        raise closed
    return closed


async def close_logs(
    redis: Redis, closings: Sequence[tuple[LogKeys, Event]], retention_s: float
) -> list[bool | RedisError]:
    """Closes the logs of settled generations in one round trip.

    For each: true when the log has the terminal event, false when there is no log (any more), or
    the error of that log. Raises RedisError when Redis is unavailable.
    """
    arguments = [
        (2, *keys[:2], terminal.seq, terminal.encoded(), keys.channel, int(retention_s * 1000))
        for keys, terminal in closings
    ]
    replies = await _replies(redis, [("EVALSHA", CLOSE.sha, *each) for each in arguments])
    unknown = [n for n, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
    if unknown:
        commands = [("EVAL", CLOSE.source, *arguments[n]) for n in unknown]
        for n, reply in zip(unknown, await _replies(redis, commands), strict=True):
            replies[n] = reply
    return [reply if isinstance(reply, RedisError) else bool(reply) for reply in replies]


async def read_logs(
    redis: Redis, wanted: list[tuple[LogKeys, int]], count: int
) -> list[list[Event]]:
    """For each log and cursor, up to `count` events after the cursor, none if the next is missing.

    One round trip. A log that cannot be read (another type of key, damaged entries) counts as
    empty and does not affect the others. Raises RedisError when Redis is unavailable.
    """
    commands = [
        ("XRANGE", keys.events, f"({after_seq}-0" if after_seq else "-", "+", "COUNT", count)
        for keys, after_seq in wanted
    ]
    logs: list[list[Event]] = []
    for reply, (keys, after_seq) in zip(await _replies(redis, commands), wanted, strict=True):
        if isinstance(reply, RedisError):
            log.warning("log_read_failed", log=keys.events.decode(), reason=str(reply))
            logs.append([])
        else:
            events = _readable_events(keys, reply)
            logs.append(events if _is_contiguous(events, after_seq) else [])
    return logs


async def _replies(redis: Redis, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The replies to these commands, errors of single commands among them."""
    async with redis.pipeline(transaction=False) as pipe:
        for command in commands:
            pipe.execute_command(*command)
        replies: list[Any] = await pipe.execute(raise_on_error=False)
        return replies


def _is_contiguous(events: list[Event], after_seq: int) -> bool:
    """Whether no event is missing between the cursor and these events."""
    return not events or events[0].seq == max(after_seq, FIRST_SEQ) + 1 or events[0].type in JUMPS


def events_of(entries: list[Any]) -> list[Event]:
    """The events of a reply to XRANGE; raises ValueError for any other entry."""
    return [_event_of(entry) for entry in entries]


def _event_of(entry: Any) -> Event:
    _id, fields = entry
    try:
        return decode_event(fields[1] if isinstance(fields, list) else fields[b"e"])
    except LookupError:
        raise ValueError("the entry has no event") from None


def _readable_events(keys: LogKeys, entries: list[Any]) -> list[Event]:
    """The events before the first damaged entry, and those from the next jump on."""
    events: list[Event] = []
    damaged = False
    for entry in entries:
        try:
            event = _event_of(entry)
        except ValueError as error:
            log.warning("log_damaged", log=keys.events.decode(), reason=str(error))
            damaged = True
            continue
        if damaged and event.type not in JUMPS:
            continue
        damaged = False
        events.append(event)
    return events
