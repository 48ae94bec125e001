"""Times as every interface reads and writes them: RFC 3339, in UTC."""

from datetime import UTC, datetime


def rfc3339(time: datetime) -> str:
    """A time as text, e.g. `2026-11-20T12:00:00.123456Z`."""
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def optional_rfc3339(time: datetime | None) -> str | None:
    """The same, for what may not have happened yet."""
    return rfc3339(time) if time is not None else None


def parse_time(text: str) -> datetime | None:
    """The time that a text names; None unless it is a time with its offset from UTC."""
    try:
        time = datetime.fromisoformat(text)
        return time.astimezone(UTC) if time.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None
