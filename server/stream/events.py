"""Events: what a generation's log is made of, and the bytes they have there.

An event is `<seq> <type> <data>`: its number, its type and one JSON object, without a line feed. These bytes are what the log stores
and what is published; a dialect turns them into what its clients speak.
"""

from enum import StrEnum
from typing import Any, Final, NamedTuple

import orjson


class EventType(StrEnum):
    QUEUED = "queued"
    STARTED = "started"
    RESTARTED = "restarted"
    RESUMED = "resumed"
    TEXT_DELTA = "text_delta"
    REASONING_DELTA = "reasoning_delta"
    TOOL_CALL = "tool_call"
    TOOL_RESULT = "tool_result"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"
    SNAPSHOT = "snapshot"


TERMINAL: Final = frozenset({EventType.COMPLETED, EventType.CANCELLED, EventType.FAILED})
JUMPS: Final = frozenset({EventType.RESTARTED, EventType.SNAPSHOT})

FIRST_SEQ: Final = 1
"""`queued`. It is computed from the generation's row and never written to the log."""

EPOCH_SEQS: Final = 1_000_000
"""Attempt n that cannot continue a log starts at (n − 1) · 1,000,000 + 1."""

_TYPES: Final[dict[bytes, str]] = {member.encode(): member for member in EventType}


class Event(NamedTuple):
    """One numbered event. `type` is an EventType, or a string that a newer server wrote."""

    seq: int
    type: str
    data: bytes

    @property
    def terminal(self) -> bool:
        """Whether it ends the answer."""
        return self.type in TERMINAL

    def encoded(self) -> bytes:
        """The bytes of this event in the log; they never change."""
        return b"%d %s %s" % (self.seq, self.type.encode(), self.data)


def make_event(seq: int, type: EventType, data: dict[str, Any]) -> Event:
    """An event whose data is `data`."""
    return Event(seq, type, orjson.dumps(data))


def make_event_of_row(seq: int, type: EventType, data: dict[str, Any]) -> Event:
    """An event computed from a row. Keys are sorted: databases return them in different orders."""
    return Event(seq, type, orjson.dumps(data, option=orjson.OPT_SORT_KEYS))


def decode_event(encoded: bytes) -> Event:
    """The event of these bytes; raises ValueError for anything else."""
    seq, type, data = encoded.split(b" ", 2)
    return Event(int(seq), _TYPES.get(type) or type.decode(), data)


def last_seq_of_lost_log(attempt: int) -> int:
    """The number after which an attempt writes that found no log to go on from."""
    return (attempt - 1) * EPOCH_SEQS
