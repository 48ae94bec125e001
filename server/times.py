"""Times in the format of every interface: RFC 3339, in UTC."""

from datetime import UTC, datetime


def rfc3339(time: datetime) -> str:
    """A time as text, e.g. `2026-11-20T12:00:00.123456Z`."""
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def optional_rfc3339(time: datetime | None) -> str | None:
    """A time as text; None for None."""
    return rfc3339(time) if time is not None else None


def parse_time(text: str) -> datetime | None:
    """Parses a time; None unless it is valid and has an offset from UTC."""
    try:
        time = datetime.fromisoformat(text)
        return time.astimezone(UTC) if time.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None
