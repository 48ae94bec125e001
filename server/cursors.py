"""Cursors: the number of an event, or an opaque position in a list."""

import base64
import re
from datetime import datetime

from server.errors import InvalidCursor
from server.ids import Prefix, is_id
from server.times import parse_time

SEQ_PATTERN = "0|[1-9][0-9]{0,15}"
_SEQ = re.compile(SEQ_PATTERN, re.ASCII)


def parse_seq(text: str | None) -> int:
    """The number of the last event a reader has seen; 0 for none. Raises InvalidCursor."""
    if not text:
        return 0
    if not _SEQ.fullmatch(text):
        raise InvalidCursor(
            "The cursor must be a whole number of at most 16 digits: the id of the last event seen."
        )
    return int(text)


def pack(*fields: str) -> str:
    """An opaque cursor with these fields."""
    return base64.urlsafe_b64encode("|".join(fields).encode()).decode().rstrip("=")


def time_cursor(time: datetime, id: str, *names: str) -> str:
    """A cursor of a list ordered by time and id. Other lists reject one with a name."""
    return pack(*names, time.isoformat(), id)


def unpack(cursor: str, fields: int) -> list[str] | None:
    """The fields of a cursor; None if it is not a cursor with this number of fields."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        found = base64.urlsafe_b64decode(padded).decode("ascii").split("|")
    except ValueError:
        return None
    return found if len(found) == fields else None


def unpack_time_cursor(cursor: str, prefix: Prefix, *names: str) -> tuple[datetime, str] | None:
    """The time and id in a time cursor; None unless it has these names and an id of this kind."""
    fields = unpack(cursor, len(names) + 2)
    if fields is None or tuple(fields[:-2]) != names or not is_id(prefix, fields[-1]):
        return None
    time = parse_time(fields[-2])
    return None if time is None else (time, fields[-1])
