"""Parsing of the events of Anthropic's Messages API and of its errors, without a connection.

An answer is a list of blocks. Each is started, extended and ended by events with its index. Unknown
events, blocks and deltas are ignored, as the API requires of its clients.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from server.providers.base import (
    Delta,
    Finish,
    ProviderError,
    ReasoningDelta,
    TextDelta,
    ToolCall,
    Usage,
    cut_off,
)
from server.providers.continuing import drop_repeated, white_space_after
from server.providers.lenient import (
    ARGUMENTS_MAX_CHARS,
    CALLS_MAX,
    Characters,
    ProtocolViolation,
    count,
    describe_error,
    error_fields,
    error_message,
    make_storable,
    parse_retry_after,
    read_json,
    typed,
)

_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_COUNTS = (
    "input_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "output_tokens",
)

_CODES = {
    "invalid_request_error": "invalid_request",
    "authentication_error": "provider_refused",
    "billing_error": "provider_refused",
    "permission_error": "provider_refused",
    "not_found_error": "provider_refused",
    "request_too_large": "context_too_long",
    "rate_limit_error": "provider_rate_limited",
    "timeout_error": "provider_timeout",
    "api_error": "provider_unavailable",
    "overloaded_error": "provider_unavailable",
}
_CODES_OF_STATUS = {
    400: "invalid_request",
    408: "provider_timeout",
    413: "context_too_long",
    422: "invalid_request",
    429: "provider_rate_limited",
    504: "provider_timeout",
}
_RETRYABLE = {"provider_rate_limited", "provider_timeout", "provider_unavailable"}
_TOO_LONG_WORDS = ("prompt is too long", "exceed context limit")


class _Call(NamedTuple):
    """A tool call whose arguments are not complete yet."""

    call_id: str
    name: str
    input: dict[str, Any]  # arguments of the first event; empty if they follow in pieces
    pieces: list[str]


class AnswerParser:
    """Parses the events of one answer. `prefix` is the text that the model continues."""

    def __init__(self, prefix: str = "") -> None:
        self.begun = self.done = False
        self.reason: str | None = None
        self._white_space = white_space_after(prefix)
        self._calls: dict[int, _Call] = {}
        self._calls_begun = self._arguments_chars = 0
        self._unknown: set[int] = set()  # blocks of unknown types
        self._used: dict[str, int] = {}
        self._characters = Characters()

    @property
    def complete(self) -> bool:
        return self.reason is not None

    could_end = finished = complete

    def feed(self, data: bytes) -> Iterable[Delta]:
        event, clean = read_json(data)
        match typed(event, "type", str):
            case "content_block_delta":
                return self._extend(
                    typed(event, "index", int), typed(event, "delta", dict), clean=clean
                )
            case "content_block_start":
                return self._begin(
                    typed(event, "index", int), typed(event, "content_block", dict), clean=clean
                )
            case "content_block_stop":
                return self._complete(typed(event, "index", int))
            case "message_start":
                return self._usage(typed(event, "message", dict).get("usage"))
            case "message_delta":
                self.reason = typed(typed(event, "delta", dict), "stop_reason", str) or self.reason
                return self._usage(event.get("usage"), final=True)
            case "message_stop":
                self.done = True
            case "message":
                return self._whole_message(event, clean=clean)
            case kind if event.get("error") or (not kind and error_message(event)):
                raise error_of(event.get("error") or event)
        return ()

    def end(self) -> Iterator[Delta]:
        if self.reason is None and not (self.done and self.begun):
            raise cut_off(begun=self.begun)
        for index in sorted(self._calls):
            yield from self._complete(index)
        yield Finish(_REASONS.get(self.reason or "", "other"))

    def _begin(self, index: int, block: dict[str, Any], *, clean: bool) -> Iterable[Delta]:
        """A block starts; some servers send its whole content here."""
        match block.get("type"):
            case "text":
                return self._text(typed(block, "text", str), clean=clean)
            case "thinking":
                self.begun = True  # newer models send only the end of their reasoning
                return self._thought(typed(block, "thinking", str), clean=clean)
            case "redacted_thinking":
                self.begun = True
            case "tool_use":
                self.begun = True
                self._calls[index] = _Call(
                    typed(block, "id", str),
                    typed(block, "name", str),
                    typed(block, "input", dict),
                    [],
                )
                self._calls_begun += 1
                self._check_size()
            case _:
                self._unknown.add(index)
                self._check_size()
        return ()

    def _extend(self, index: int, delta: dict[str, Any], *, clean: bool) -> Iterable[Delta]:
        if index in self._unknown:
            return ()
        match delta.get("type"):
            case "text_delta":
                return self._text(typed(delta, "text", str), clean=clean)
            case "thinking_delta":
                return self._thought(typed(delta, "thinking", str), clean=clean)
            case "input_json_delta":
                if index not in self._calls:
                    raise ProtocolViolation("arguments of a tool call that was not started")
                piece = typed(delta, "partial_json", str)
                self._calls[index].pieces.append(piece)
                self._arguments_chars += len(piece)
                self._check_size()
        return ()  # signatures and citations have no part

    def _complete(self, index: int) -> Iterable[Delta]:
        """A block ends; if it is a tool call, that is complete."""
        self._unknown.discard(index)
        call = self._calls.pop(index, None)
        if call is None:
            return ()
        arguments = "".join(call.pieces) or json.dumps(
            call.input, ensure_ascii=False, separators=(",", ":")
        )
        return (
            ToolCall(
                make_storable(call.call_id) or f"call_{index}",
                make_storable(call.name),
                make_storable(arguments),
            ),
        )

    def _whole_message(self, message: dict[str, Any], *, clean: bool) -> Iterator[Delta]:
        """A whole message, from a server that does not stream."""
        for index, block in enumerate(typed(message, "content", list)):
            if isinstance(block, dict):
                yield from self._begin(index, block, clean=clean)
                yield from self._complete(index)
        self.reason = typed(message, "stop_reason", str) or None
        yield from self._usage(message.get("usage"), final=True)

    def _text(self, text: str, *, clean: bool) -> Iterable[Delta]:
        if text:
            self.begun = True
            text = self._characters.join(text, clean=clean)
            if self._white_space:
                text, self._white_space = drop_repeated(text, self._white_space)
        return (TextDelta(text),) if text else ()

    def _thought(self, text: str, *, clean: bool) -> Iterable[Delta]:
        if not text:
            return ()
        self.begun = True
        return (ReasoningDelta(self._characters.join(text, clean=clean)),)

    def _usage(self, usage: Any, *, final: bool = False) -> Iterable[Delta]:
        """The usage so far: the input is known at the start, the output at the end."""
        for key in _COUNTS:
            self._used[key] = max(
                self._used.get(key, 0), count(usage, key)
            )  # the counts are totals and never fall
        uncached, written, cached, output = (self._used[key] for key in _COUNTS)
        counts = {"input_tokens": uncached + written + cached}
        if cached:
            counts["cached_input_tokens"] = cached
        if final and count(usage, "output_tokens"):
            counts["output_tokens"] = output
            if thought := count(usage.get("output_tokens_details"), "thinking_tokens"):
                counts["reasoning_tokens"] = thought
        return (Usage(counts),) if uncached + written + cached + output else ()

    def _check_size(self) -> None:
        if (
            max(self._calls_begun, len(self._unknown)) > CALLS_MAX
            or self._arguments_chars > ARGUMENTS_MAX_CHARS
        ):
            raise ProtocolViolation(
                f"more than {CALLS_MAX} tool calls or open blocks, "
                f"or {ARGUMENTS_MAX_CHARS} characters of arguments"
            )


def error_of(
    error: Any, status: int | None = None, retry_after: str | None = None
) -> ProviderError:
    """Interprets an error response, or an error in the middle of an answer."""
    message = error_message(error)
    code = _CODES.get(str(error_fields(error).get("type")))
    if code is None:
        unknown = "provider_unavailable" if status is None or status >= 500 else "provider_refused"
        code = _CODES_OF_STATUS.get(status or 0, unknown)
    if code == "invalid_request" and any(known in message for known in _TOO_LONG_WORDS):
        code = "context_too_long"
    retryable = code in _RETRYABLE
    return ProviderError(
        code,
        describe_error(message, status),
        retryable=retryable,
        retry_after_s=parse_retry_after(retry_after) if retryable else None,
    )
