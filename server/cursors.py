"""Cursors: places in a list, opaque to whoever keeps one."""

import base64
from datetime import UTC, datetime


def pack(*fields: str) -> str:
    """A cursor of these fields."""
    return base64.urlsafe_b64encode("|".join(fields).encode()).decode().rstrip("=")


def unpack(cursor: str, fields: int) -> list[str] | None:
    """The fields of a cursor; None for what is none, or has another number of them."""
    try:
        found = (
            base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii").split("|")
        )
    except ValueError:
        return None
    return found if len(found) == fields else None


def moment_of(text: str) -> datetime | None:
    """The moment that was packed as text; None for what is none."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None
