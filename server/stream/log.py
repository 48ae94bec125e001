"""The token log of a generation in Redis: three scripts that write it, and reading it back.

Two keys that share the hash tag `{generation}`, so that they live on one node: a hash (`epoch seq closed whole`) and a stream whose
entry ids are `<seq>-0`. Events are published on a channel of the same name. Numbers begin after `queued`, which is the row itself.
"""

from hashlib import sha1
from importlib import resources
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

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
    """Ends the log of a settled generation; true when it carries the terminal event, false when there is no log (any more)."""
    arguments = (
        keys.state,
        keys.events,
        terminal.seq,
        terminal.encoded(),
        keys.channel,
        int(retention_s * 1000),
    )
    try:
        reply = await redis.execute_command("EVALSHA", CLOSE.sha, 2, *arguments)  # type: ignore[no-untyped-call]
    except NoScriptError:
        reply = await redis.execute_command("EVAL", CLOSE.source, 2, *arguments)  # type: ignore[no-untyped-call]
    return bool(reply)


async def read_logs(
    redis: Redis, wanted: list[tuple[LogKeys, int]], count: int
) -> list[list[Event]]:
    """For each log and mark, up to `count` events after the mark, in order; none where the next one is missing. One round trip."""
    async with redis.pipeline(transaction=False) as pipe:
        for keys, mark in wanted:
            pipe.execute_command(
                "XRANGE", keys.events, f"({mark}-0" if mark else "-", "+", "COUNT", count
            )
        replies = await pipe.execute()
    logs = [events_of(entries) for entries in replies]
    return [
        events if _follow(events, mark) else []
        for events, (_keys, mark) in zip(logs, wanted, strict=True)
    ]


def _follow(events: list[Event], mark: int) -> bool:
    """Whether nothing is missing between a mark and these events: a log that somebody cut is as good as none."""
    return not events or events[0].seq == max(mark, FIRST_SEQ) + 1 or events[0].type in JUMPS


def events_of(entries: list[Any]) -> list[Event]:
    """The events of what XRANGE answered."""
    return [
        decode_event(fields[1] if isinstance(fields, list) else fields[b"e"])
        for _id, fields in entries
    ]
