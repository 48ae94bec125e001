"""Cursors: the number of an event, or an opaque position in a list."""

import base64
import re

from server.errors import InvalidCursor

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


def unpack(cursor: str, fields: int) -> list[str] | None:
    """The fields of a cursor; None if it is not a cursor with this number of fields."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        found = base64.urlsafe_b64decode(padded).decode("ascii").split("|")
    except ValueError:
        return None
    return found if len(found) == fields else None
