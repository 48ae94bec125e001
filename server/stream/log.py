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
from redis.exceptions import NoScriptError, RedisError, ResponseError

from server.logs import log
from server.stream.events import FIRST_SEQ, JUMPS, Event, decode_event
from server.stream.link import Command

SERVER_ERRORS: Final = frozenset(
    {"NOSCRIPT", "LOADING", "READONLY", "OOM", "BUSY", "MISCONF", "NOREPLICAS", "MASTERDOWN"}
    | {"CLUSTERDOWN", "NOAUTH", "NOPERM", "WRONGPASS", "UNKILLABLE"}
)
"""Codes of error replies that concern the server, not one log."""


def concerns_server(error: Exception) -> bool:
    """Whether an error reply, of hiredis or redis-py, concerns more than one log."""
    # redis-py has classes for the codes it knows, and takes the code off their messages.
    known = isinstance(error, RedisError) and type(error) is not ResponseError
    return known or str(error).partition(" ")[0] in SERVER_ERRORS


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


def open_command(
    keys: LogKeys, epoch: int, *, deadline_us: int, ttl_ms: int, first: bool, entries: bool
) -> Command:
    """Creates or adopts a log until a time of Redis's clock; see `open.lua` for the reply.

    `first`: nobody can have written before. `entries`: the reply is to hold what is in the log.
    """
    flags = ("first" if first else "", "entries" if entries else "")
    return ("EVALSHA", OPEN.sha, 2, keys.state, keys.events, epoch, deadline_us, ttl_ms, *flags)


def append_command(
    keys: LogKeys, epoch: int, events: Sequence[Event], *, ttl_ms: int, whole: bool
) -> Command:
    """Appends events. `whole`: with these, a log that had lost some lacks none again."""
    head = ("EVALSHA", APPEND.sha, 2, keys.state, keys.events, epoch, keys.channel, ttl_ms)
    numbered = (argument for event in events for argument in (event.seq, event.encoded()))
    return (*head, "whole" if whole else "", *numbered)


def close_command(keys: LogKeys, terminal: Event, *, retention_ms: int) -> Command:
    """Ends a log with its terminal event, or deletes one that lacks events before it."""
    end = (terminal.seq, terminal.encoded(), keys.channel, retention_ms)
    return ("EVALSHA", CLOSE.sha, 2, keys.state, keys.events, *end)


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
    retention_ms = int(retention_s * 1000)
    commands = [close_command(*closing, retention_ms=retention_ms) for closing in closings]
    replies = await call_script(redis, CLOSE, commands)
    return [reply if isinstance(reply, RedisError) else bool(reply) for reply in replies]


async def call_script(redis: Redis, script: Script, commands: Sequence[Command]) -> list[Any]:
    """The replies to these calls of one script, errors of single calls among them.

    Loads the script where Redis does not have it. Raises RedisError when Redis is away.
    """
    replies = await _replies(redis, commands)
    unknown = [n for n, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
    if unknown:
        again = [("EVAL", script.source, *commands[n][2:]) for n in unknown]
        for n, reply in zip(unknown, await _replies(redis, again), strict=True):
            replies[n] = reply
    return replies


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
