"""What other servers send, taken with care: JSON, values of the right type, whole characters, figures, and the words of an error."""

import json
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import orjson

from server.errors import TidemarkError

T = TypeVar("T")

CALLS_MAX, ARGUMENTS_MAX_CHARS = 128, 1 << 20
"""How many tools one answer may call, and how much it may tell all of them."""

ERROR_MAX_CHARS = 500


class ProtocolViolation(TidemarkError):
    """Something that is not of the wire format that was agreed on."""


class Characters:
    """Makes the characters of a stream of text whole: servers that count in UTF-16 cut them in two."""

    def __init__(self) -> None:
        self._half = ""

    def whole(self, text: str, *, clean: bool) -> str:
        """The text up to its last whole character. `clean`: nothing in it is cut, as far as it goes."""
        if clean and not self._half:
            return text
        text, self._half = self._half + text, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return mend(text)


def mend(text: str) -> str:
    """Text that can be stored and sent: halves of characters joined or replaced, NULs too, which PostgreSQL cannot keep."""
    return (
        text.encode("utf-16-le", "surrogatepass")
        .decode("utf-16-le", "replace")
        .replace("\0", "\ufffd")
    )


def read_json(data: bytes) -> tuple[Any, bool]:
    """The value of an event, and whether every character in it is whole. Raises ProtocolViolation."""
    try:
        return orjson.loads(data), True
    except orjson.JSONDecodeError as error:
        try:
            return json.loads(data), False  # it takes halves of characters, and NaN
        except (ValueError, RecursionError):
            raise ProtocolViolation(f"an event is no JSON: {error}") from None


def typed(holder: Any, key: str, of: type[T]) -> T:
    """What `holder` has under `key`, the empty value where it has nothing or null; raises ProtocolViolation for another type."""
    if not isinstance(holder, dict):
        raise ProtocolViolation(f"what holds {key!r} is no object")
    value = holder.get(key)
    if value is None:
        return of()
    if not isinstance(value, of):
        raise ProtocolViolation(f"{key!r} is no {of.__name__}")
    return value


def count(holder: Any, key: str) -> int:
    """A figure as it can be understood: no answer fails for its bill."""
    value = holder.get(key) if isinstance(holder, dict) else None
    return int(value) if isinstance(value, int | float) and 0 <= value < 2**53 else 0


def error_in(body: bytes) -> Any:
    """The error that the body of a refusal holds, an object or words; None where it is no JSON."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if isinstance(said, dict):
        said = said.get("error") or said.get("detail") or said
    return said if isinstance(said, dict | str) else None


def error_message(error: Any) -> str:
    """What an error says for people."""
    words = error.get("message") if isinstance(error, dict) else error
    return mend(str(words or ""))[:ERROR_MAX_CHARS]


def describe_error(words: str, status: int | None) -> str:
    """What people are told of a refusal with `status`, or of an error in the middle of an answer."""
    said = f": {words}" if words else "."
    return (
        f"The model's server answered {status}{said}"
        if status
        else f"The model's server broke off{said}"
    )


def seconds(retry_after: str | None) -> float | None:
    """What `Retry-After` says, a number or a date."""
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
