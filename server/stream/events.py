"""Events: the entries of a generation's log, and their encoding.

The log stores and publishes an event as `<seq> <type> <data>`: its number, its type and one JSON
object without a line feed. A dialect turns it into the format of its clients.
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
DELTAS: Final = frozenset({EventType.TEXT_DELTA, EventType.REASONING_DELTA})
JUMPS: Final = frozenset({EventType.RESTARTED, EventType.SNAPSHOT})

FIRST_SEQ: Final = 1
"""The number of `queued`, which is computed from the row and never written to the log."""

EPOCH_SEQS: Final = 1_000_000
"""An attempt n that cannot continue the log numbers its events from (n − 1) · 1,000,000 + 1."""

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
    return Event(seq, type, orjson.dumps(data))


def make_event_of_row(seq: int, type: EventType, data: dict[str, Any]) -> Event:
    """An event computed from a row. Keys are sorted: databases return them in different orders."""
    return Event(seq, type, orjson.dumps(data, option=orjson.OPT_SORT_KEYS))


def decode_event(encoded: bytes) -> Event:
    """Decodes an event; raises ValueError if the bytes are not one."""
    seq, type, data = encoded.split(b" ", 2)
    return Event(int(seq), _TYPES.get(type) or type.decode(), data)


def last_seq_of_lost_log(attempt: int) -> int:
    """The number after which an attempt starts that found no log to continue."""
    return (attempt - 1) * EPOCH_SEQS
