"""Lenient parsing of what servers send: JSON, types, surrogate pairs, numbers, errors."""

import json
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import orjson

from server.errors import TidemarkError

T = TypeVar("T")

CALLS_MAX, ARGUMENTS_MAX_CHARS = 128, 1 << 20
"""How many tools one answer may call, and the total size of their arguments."""

ERROR_MAX_CHARS = 500


class ProtocolViolation(TidemarkError):
    """The server violated the wire format."""


class Characters:
    """Joins surrogate pairs in a stream of text: servers that count in UTF-16 split them."""

    def __init__(self) -> None:
        self._half = ""

    def whole(self, text: str, *, clean: bool) -> str:
        """The text up to its last whole character; `clean` says that no character in it is split."""
        if clean and not self._half:
            return text
        text, self._half = self._half + text, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return mend(text)


def mend(text: str) -> str:
    """Text that can be stored: surrogates are joined or replaced, and NULs, which PostgreSQL refuses."""
    return (
        text.encode("utf-16-le", "surrogatepass")
        .decode("utf-16-le", "replace")
        .replace("\0", "\ufffd")
    )


def read_json(data: bytes) -> tuple[Any, bool]:
    """The value of an event, and whether no character in it is split. Raises ProtocolViolation."""
    try:
        return orjson.loads(data), True
    except orjson.JSONDecodeError as error:
        try:
            return json.loads(data), False  # it accepts lone surrogates, and NaN
        except (ValueError, RecursionError):
            raise ProtocolViolation(f"an event is no JSON: {error}") from None


def typed(holder: Any, key: str, of: type[T]) -> T:
    """The value of `key`, or an empty one if it is missing or null. Raises ProtocolViolation."""
    if not isinstance(holder, dict):
        raise ProtocolViolation(f"what holds {key!r} is no object")
    value = holder.get(key)
    if value is None:
        return of()
    if not isinstance(value, of):
        raise ProtocolViolation(f"{key!r} is no {of.__name__}")
    return value


def count(holder: Any, key: str) -> int:
    """A count, or None if it is none: an answer does not fail because of its usage."""
    value = holder.get(key) if isinstance(holder, dict) else None
    return int(value) if isinstance(value, int | float) and 0 <= value < 2**53 else 0


def error_in(body: bytes) -> Any:
    """The error in the body of an error response, an object or text; None unless it is JSON."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if isinstance(said, dict):
        said = said.get("error") or said.get("detail") or said
    return said if isinstance(said, dict | str) else None


def error_message(error: Any) -> str:
    """The message of an error."""
    words = error.get("message") if isinstance(error, dict) else error
    return mend(str(words or ""))[:ERROR_MAX_CHARS]


def describe_error(words: str, status: int | None) -> str:
    """The message for users about an error response, or an error in the middle of an answer."""
    said = f": {words}" if words else "."
    return (
        f"The model's server answered {status}{said}"
        if status
        else f"The model's server broke off{said}"
    )


def seconds(retry_after: str | None) -> float | None:
    """The seconds in a `Retry-After` header, which is a number or a date."""
    if not retry_after:
        return None
    try:
        wait_s = float(retry_after)
    except ValueError:
        try:
            at = parsedate_to_datetime(retry_after)
        except ValueError:
            return None
        wait_s = ((at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
    return max(0.0, wait_s) if wait_s < 86_400 else None
