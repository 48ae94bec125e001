"""Lenient parsing of what servers send: JSON, types, surrogate pairs, numbers, errors."""

import json
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import orjson

from server.errors import TidemarkError

T = TypeVar("T")

CALLS_MAX, ARGUMENTS_MAX_CHARS = 128, 1 << 20
"""The maximum number of tool calls in an answer, and the total size of their arguments."""

ERROR_MAX_CHARS, ERROR_DEPTH_MAX, ERROR_LIST_MAX = 500, 5, 5
ERROR_KEYS = ("message", "msg", "error", "detail", "errors", "error_description", "title", "reason")
"""Where errors have their words, the most specific ones first."""


class ProtocolViolation(TidemarkError):
    """The server violated the wire format."""


class MalformedEvent(ProtocolViolation):
    """One event cannot be understood; those after it may."""


class Characters:
    """Joins surrogate pairs in a stream of text: servers that count in UTF-16 split them."""

    def __init__(self) -> None:
        self._half = ""

    def join(self, text: str, *, clean: bool) -> str:
        """The text up to its last complete character. `clean`: it contains no split character."""
        if clean and not self._half:
            return text
        text, self._half = self._half + text, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return make_storable(text)


def make_storable(text: str) -> str:
    """Joins or replaces surrogates, and replaces NULs, which PostgreSQL cannot store."""
    return (
        text.encode("utf-16-le", "surrogatepass")
        .decode("utf-16-le", "replace")
        .replace("\0", "\ufffd")
    )


def read_json(data: bytes) -> tuple[Any, bool]:
    """The JSON value of an event, and whether it is without split characters.

    Raises MalformedEvent.
    """
    try:
        return orjson.loads(data), True
    except orjson.JSONDecodeError as error:
        try:
            return json.loads(data), False  # it accepts lone surrogates, and NaN
        except (ValueError, RecursionError):
            raise MalformedEvent(f"an event is not valid JSON: {error}") from None


def typed(parent: Any, key: str, of: type[T]) -> T:
    """The value of `key`, or an empty one if it is missing or null. Raises MalformedEvent."""
    if not isinstance(parent, dict):
        raise MalformedEvent(f"expected an object with {key!r}")
    value = parent.get(key)
    if value is None:
        return of()
    if not isinstance(value, of):
        raise MalformedEvent(f"{key!r} must be of type {of.__name__}")
    return value


def count(usage: Any, key: str) -> int:
    """A token count, or 0 if it is not valid: an answer does not fail because of its usage."""
    value = usage.get(key) if isinstance(usage, dict) else None
    return int(value) if isinstance(value, int | float) and 0 <= value < 2**53 else 0


def error_in(body: bytes) -> Any:
    """The error in the body of an error response, in any shape; None unless it is JSON."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def error_fields(error: Any) -> dict[str, Any]:
    """The object that describes an error, which servers wrap in `error` or `detail`."""
    while isinstance(error, dict):
        inner = error.get("error") or error.get("detail")
        if not isinstance(inner, dict):
            return error
        error = inner
    return {}


def error_message(error: Any) -> str:
    """What an error says, wherever it says it."""
    return make_storable(_words(error, ERROR_DEPTH_MAX))[:ERROR_MAX_CHARS]


def _words(error: Any, depth: int) -> str:
    if isinstance(error, str):
        return error.strip()
    if isinstance(error, list) and depth:
        found = [words for each in error[:ERROR_LIST_MAX] if (words := _words(each, depth - 1))]
        return "; ".join(found)
    if isinstance(error, dict) and depth:
        for key in ERROR_KEYS:
            if words := _words(error.get(key), depth - 1):
                location = error.get("loc") or error.get("param")
                where = location if isinstance(location, list) else [location] if location else []
                path = ".".join(map(str, where))
                return f"{path}: {words}" if path and path not in words else words
    return ""


def describe_error(message: str, status: int | None) -> str:
    """The message for users about an error response, or an error in the middle of an answer."""
    fact = f"returned {status}" if status else "reported an error"
    return f"The model's server {fact}: {message}" if message else f"The model's server {fact}."


def parse_retry_after(retry_after: str | None) -> float | None:
    """The seconds of a `Retry-After` header, which is a number or a date; None if not valid."""
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
