"""Parsing of OpenAI's `chat.completion.chunk` objects and of its errors, without a connection.

Servers that implement this format differ, so parsing is lenient.
"""

from collections.abc import Iterator
from typing import Any

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
    MalformedEvent,
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
from server.providers.thoughts import Thoughts

DONE = b"[done]"
_REASONS = {"stop", "length", "tool_calls", "content_filter"}
_TOO_LONG = {"context_length_exceeded", "exceed_context_size_error"}
_REFUSED = {"invalid_request_error", "BadRequestError", "validation_error", "invalid_parameter"}
"""What errors are called that come without a status, instead of an answer."""

_TOO_LONG_WORDS = (
    "maximum context length",
    "context_length_exceeded",
    "exceeds the available context size",
    "max_new_tokens` must be <=",
    "ContextWindowExceededError",
    "prompt is too long",
)


class AnswerParser:
    """Parses the chunks of one answer. The usage may follow the finish reason.

    `prefix` is the text that the model continues.
    """

    def __init__(self, thoughts: Thoughts | None = None, prefix: str = "") -> None:
        self.begun = self.done = self.finished = False
        self._thoughts = thoughts
        self._white_space = white_space_after(prefix)
        self.reason: str | None = None
        self._finish_is_reliable = self._finish_is_last = True
        self._calls: dict[int, dict[str, str]] = {}
        self._last_call = 0
        self._call_of_index: dict[int, int] = {}
        self._arguments_chars = 0
        self._characters = Characters()

    @property
    def complete(self) -> bool:
        return self.reason is not None and self._finish_is_reliable

    @property
    def could_end(self) -> bool:
        return self.reason is not None and self._finish_is_last

    def feed(self, data: bytes) -> Iterator[Delta]:
        if data[:1] != b"{" and data.strip().lower() == DONE:
            self.done = True
            return
        chunk, clean = read_json(data)
        if not isinstance(chunk, dict):
            raise MalformedEvent("a chunk is not an object")
        if error := chunk.get("error") or (chunk if _is_error(chunk) else None):
            raise error_of(error)
        if isinstance(usage := chunk.get("usage"), dict):
            yield Usage(_counts(usage))
        for choice in typed(chunk, "choices", list)[:1]:
            delta = typed(choice, "delta", dict) or typed(choice, "message", dict)
            reason, output = typed(choice, "finish_reason", str), False
            if reasoning := typed(delta, "reasoning_content", str) or typed(
                delta, "reasoning", str
            ):
                self.begun = output = True
                yield ReasoningDelta(self._characters.join(reasoning, clean=clean))
            if text := _text(delta) or typed(delta, "refusal", str):
                self.begun = output = True
                text = self._characters.join(text, clean=clean)
                if self._white_space:
                    text, self._white_space = drop_repeated(text, self._white_space)
                if self._thoughts is not None:
                    yield from self._thoughts.feed(text)
                elif text:
                    yield TextDelta(text)
            for piece in typed(delta, "tool_calls", list):
                self.begun = output = True
                self._add_call(piece)
            self._finish(reason, output=output)

    def _finish(self, reason: str, *, output: bool) -> None:
        """Records a finish reason. Some servers send one with every chunk, before the end."""
        if output or reason:
            self._finish_is_last = bool(reason)
        if output:
            self._finish_is_reliable = self._finish_is_reliable and self.reason is None
        self.reason = reason or self.reason
        self.finished = bool(reason) and not output and self._finish_is_reliable

    def end(self) -> Iterator[Delta]:
        if self.reason is None and not (self.done and self.begun):
            raise cut_off(begun=self.begun)
        if self._thoughts is not None:
            yield from self._thoughts.end()
        for index, call in sorted(self._calls.items()):
            yield ToolCall(
                *(
                    make_storable(text)
                    for text in (call["id"] or f"call_{index}", call["name"], call["arguments"])
                )
            )
        reason = self.reason if self.reason in _REASONS else "other"
        yield Finish("tool_calls" if self._calls and reason in ("stop", "other") else reason)

    def _add_call(self, piece: Any) -> None:
        function = typed(piece, "function", dict)
        call = self._calls.setdefault(
            self._index_of(piece), {"id": "", "name": "", "arguments": ""}
        )
        call["id"] = call["id"] or typed(piece, "id", str)
        call["name"] = call["name"] or typed(function, "name", str)
        arguments = typed(function, "arguments", str)
        call["arguments"] += arguments
        self._arguments_chars += len(arguments)
        if len(self._calls) > CALLS_MAX or self._arguments_chars > ARGUMENTS_MAX_CHARS:
            raise ProtocolViolation(
                f"more than {CALLS_MAX} tool calls, "
                f"or {ARGUMENTS_MAX_CHARS} characters of arguments"
            )

    def _index_of(self, piece: Any) -> int:
        """The call that a piece belongs to: a new id starts another one, even under an old index.

        With an index, it must come with a name: some servers send a new id with every piece.
        """
        id, name = typed(piece, "id", str), typed(typed(piece, "function", dict), "name", str)
        sent = None if piece.get("index") is None else typed(piece, "index", int)
        at = self._last_call if sent is None else self._call_of_index.get(sent, sent)
        known = self._calls.get(at, {}).get("id")
        if id and known and known != id and (name or sent is None):
            at = max(self._calls) + 1
        if sent is not None:
            self._call_of_index[sent] = at
        self._last_call = at
        return at


def error_of(
    error: Any, status: int | None = None, retry_after: str | None = None
) -> ProviderError:
    """Interprets an error response, or an error in the middle of an answer."""
    fields = error_fields(error)
    message = error_message(error)
    text = describe_error(message, status)
    kinds = {str(fields.get("code")), str(fields.get("type"))}
    code = status or next(
        (int(kind) for kind in kinds if kind.isascii() and kind.isdigit() and len(kind) == 3), 0
    )
    if kinds & _TOO_LONG or (
        code in (0, 400, 413, 422) and any(known in message for known in _TOO_LONG_WORDS)
    ):
        return ProviderError("context_too_long", text)
    if status is None and kinds & _REFUSED:
        return ProviderError("provider_refused", text)
    if code == 429 or kinds & {"rate_limit_exceeded", "rate_limit_error", "insufficient_quota"}:
        can_wait = "insufficient_quota" not in kinds
        return ProviderError(
            "provider_rate_limited",
            text,
            retryable=can_wait,
            retry_after_s=parse_retry_after(retry_after),
        )
    if code == 408 or code >= 500 or not code:
        return ProviderError(
            "provider_unavailable",
            text,
            retryable=True,
            retry_after_s=parse_retry_after(retry_after),
        )
    return ProviderError("provider_refused", text)


def _is_error(chunk: dict[str, Any]) -> bool:
    """Whether a chunk is itself the object that describes an error."""
    return chunk.get("object") == "error" or ("choices" not in chunk and bool(error_message(chunk)))


def _text(delta: dict[str, Any]) -> str:
    """The text of a delta, which some servers send as a list of parts."""
    content = delta.get("content")
    if not isinstance(content, list):
        return typed(delta, "content", str)
    return "".join(
        typed(part, "text", str)
        for part in content
        if isinstance(part, dict) and part.get("type") in ("text", "output_text")
    )


def _counts(usage: dict[str, Any]) -> dict[str, Any]:
    """The usage, as far as it is valid: an answer does not fail because of it."""
    counts = {
        "input_tokens": count(usage, "prompt_tokens"),
        "output_tokens": count(usage, "completion_tokens"),
    }
    cached = count(usage.get("prompt_tokens_details"), "cached_tokens")
    reasoning = count(usage.get("completion_tokens_details"), "reasoning_tokens")
    return counts | {
        k: v for k, v in (("cached_input_tokens", cached), ("reasoning_tokens", reasoning)) if v
    }
