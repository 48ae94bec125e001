"""What chunks of OpenAI's `chat.completion.chunk` say, and what its errors mean; no connection is needed to read them.

Servers that claim to speak this format differ. Whatever can be understood is; what cannot ends the answer with `provider_protocol`.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import orjson

from server.errors import TidemarkError
from server.providers.base import Delta, Finish, ProviderError, ReasoningDelta, TextDelta, ToolCall, Usage

T = TypeVar("T")

CALLS_MAX, ARGUMENTS_MAX_CHARS = 128, 1 << 20
"""How many tools one answer may call, and how much it may tell all of them."""

ERROR_MAX_CHARS = 500
_REASONS = {"stop", "length", "tool_calls", "content_filter"}
_TOO_LONG = {"context_length_exceeded", "exceed_context_size_error"}
_TOO_LONG_WORDS = ("maximum context length", "context_length_exceeded", "exceeds the available context size")


class NotOurs(TidemarkError):
    """A chunk that is not of this wire format."""


class Answer:
    """What has to be remembered between chunks: tool calls come in pieces, and the reason before the usage."""

    def __init__(self) -> None:
        self.begun = False  # something was said, be it in a piece that is not passed on yet
        self.reason: str | None = None
        self._calls: dict[int, dict[str, str]] = {}
        self._last_call = 0
        self._arguments_chars = 0
        self._half = ""  # the first half of a character that a server cut in two

    def take(self, data: bytes) -> Iterator[Delta]:
        """The deltas of one chunk. Raises ProviderError where it is an error, and NotOurs."""
        chunk, clean = _read(data)
        if not isinstance(chunk, dict):
            raise NotOurs("a chunk is no object")
        if error := chunk.get("error") or (chunk if chunk.get("object") == "error" else None):
            raise error_of(error)
        if isinstance(usage := chunk.get("usage"), dict):
            yield Usage(_counts(usage))
        for choice in _typed(chunk, "choices", list)[:1]:
            delta = _typed(choice, "delta", dict) or _typed(choice, "message", dict)
            if reasoning := _typed(delta, "reasoning_content", str) or _typed(delta, "reasoning", str):
                self.begun = True
                yield ReasoningDelta(reasoning if clean else self._mended(reasoning))
            if text := _text(delta) or _typed(delta, "refusal", str):
                self.begun = True
                yield TextDelta(text if clean and not self._half else self._mended(text))
            for piece in _typed(delta, "tool_calls", list):
                self.begun = True
                self._add_call(piece)
            self.reason = _typed(choice, "finish_reason", str) or self.reason

    def end(self, *, done: bool) -> Iterator[Delta]:
        """What is known only at the end; raises ProviderError when the stream was cut off. `done`: the server said that it was not."""
        if self.reason is None and not (done and self.begun):
            raise ProviderError("provider_protocol", "The model's server ended the stream without saying why.", retryable=True)
        for index, call in sorted(self._calls.items()):
            yield ToolCall(*(_mend(text) for text in (call["id"] or f"call_{index}", call["name"], call["arguments"])))
        reason = self.reason if self.reason in _REASONS else "other"
        yield Finish("tool_calls" if self._calls and reason in ("stop", "other") else reason)

    def _add_call(self, piece: Any) -> None:
        function = _typed(piece, "function", dict)
        call = self._calls.setdefault(self._index_of(piece), {"id": "", "name": "", "arguments": ""})
        call["id"] = call["id"] or _typed(piece, "id", str)
        call["name"] = call["name"] or _typed(function, "name", str)
        arguments = _typed(function, "arguments", str)
        call["arguments"] += arguments
        self._arguments_chars += len(arguments)
        if len(self._calls) > CALLS_MAX or self._arguments_chars > ARGUMENTS_MAX_CHARS:
            raise NotOurs(f"more than {CALLS_MAX} tool calls, or {ARGUMENTS_MAX_CHARS} characters of arguments")

    def _index_of(self, piece: Any) -> int:
        """Which call a piece belongs to; where the server does not count them, another id is another call."""
        index, id = (piece.get("index") if isinstance(piece, dict) else None), _typed(piece, "id", str)
        if index is not None:
            self._last_call = _typed(piece, "index", int)
        elif id and self._calls and self._calls[self._last_call]["id"] != id:
            self._last_call = max(self._calls) + 1
        return self._last_call

    def _mended(self, text: str) -> str:
        """Text whose characters are whole: servers that count in UTF-16 cut them in two."""
        text, self._half = self._half + text, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return _mend(text)


def error_of(error: Any, status: int | None = None, retry_after: str | None = None) -> ProviderError:
    """What an error means that a server sent with `status`, or in the middle of an answer: as far as it can be told, in its own words."""
    fields = error if isinstance(error, dict) else {}
    words = _mend(str(fields.get("message") or "" if fields else error or ""))[:ERROR_MAX_CHARS]
    said = f": {words}" if words else "."
    message = f"The model's server answered {status}{said}" if status else f"The model's server broke off{said}"
    kinds = {str(fields.get("code")), str(fields.get("type"))}
    code = status or next((int(kind) for kind in kinds if kind.isascii() and kind.isdigit() and len(kind) == 3), 0)
    if kinds & _TOO_LONG or (code in (0, 400, 413, 422) and any(known in words for known in _TOO_LONG_WORDS)):
        return ProviderError("context_too_long", message)
    if code == 429 or kinds & {"rate_limit_exceeded", "rate_limit_error", "insufficient_quota"}:
        can_wait = "insufficient_quota" not in kinds
        return ProviderError("provider_rate_limited", message, retryable=can_wait, retry_after_s=_seconds(retry_after))
    if code == 408 or code >= 500 or not code:
        return ProviderError("provider_unavailable", message, retryable=True, retry_after_s=_seconds(retry_after))
    return ProviderError("provider_refused", message)


def refusal(status: int, body: bytes, retry_after: str | None) -> ProviderError:
    """What a status other than 200 means, with the server's own words where it sent JSON."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        said = None
    if isinstance(said, dict):
        said = said.get("error") or said.get("detail") or said
    return error_of(said if isinstance(said, dict | str) else None, status, retry_after)


def _read(data: bytes) -> tuple[Any, bool]:
    """The value of a chunk, and whether every character in it is whole. Raises NotOurs."""
    try:
        return orjson.loads(data), True
    except orjson.JSONDecodeError as error:
        try:
            return json.loads(data), False  # it takes halves of characters, and NaN
        except (ValueError, RecursionError):
            raise NotOurs(f"a chunk is no JSON: {error}") from None


def _mend(text: str) -> str:
    """Text that can be stored and sent: halves of characters joined or replaced, NULs too, which PostgreSQL cannot keep."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").replace("\0", "\ufffd")


def _text(delta: dict[str, Any]) -> str:
    """The text of a delta; some servers send it as a list of parts."""
    content = delta.get("content")
    if not isinstance(content, list):
        return _typed(delta, "content", str)
    return "".join(_typed(part, "text", str) for part in content if isinstance(part, dict) and part.get("type") in ("text", "output_text"))


def _typed(holder: Any, key: str, of: type[T]) -> T:
    """What `holder` has under `key`, the empty value where it has nothing or null; raises NotOurs for another type."""
    if not isinstance(holder, dict):
        raise NotOurs(f"what holds {key!r} is no object")
    value = holder.get(key)
    if value is None:
        return of()
    if not isinstance(value, of):
        raise NotOurs(f"{key!r} is no {of.__name__}")
    return value


def _counts(usage: dict[str, Any]) -> dict[str, Any]:
    """Figures as they can be understood: no answer fails for its bill."""
    counts = {"input_tokens": _count(usage, "prompt_tokens"), "output_tokens": _count(usage, "completion_tokens")}
    cached = _count(usage.get("prompt_tokens_details"), "cached_tokens")
    reasoning = _count(usage.get("completion_tokens_details"), "reasoning_tokens")
    return counts | {k: v for k, v in (("cached_input_tokens", cached), ("reasoning_tokens", reasoning)) if v}


def _count(holder: Any, key: str) -> int:
    value = holder.get(key) if isinstance(holder, dict) else None
    return int(value) if isinstance(value, int | float) and 0 <= value < 2**53 else 0


def _seconds(retry_after: str | None) -> float | None:
    """What `Retry-After` says, a number or a date."""
    if not retry_after:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            at = parsedate_to_datetime(retry_after)
        except ValueError:
            return None
        seconds = ((at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if seconds < 86_400 else None
