"""Any server that speaks OpenAI's `/chat/completions`, streamed: https://platform.openai.com/docs/api-reference/chat-streaming"""

from collections.abc import AsyncIterator, Iterator
from typing import Any, TypeVar

import aiohttp
import orjson

from server.errors import TidemarkError
from server.parts import Parts, joined_text
from server.providers.base import Delta, Finish, ModelRequest, ProviderError, ReasoningDelta, TextDelta, ToolCall, Usage
from server.providers.wire import EventParser, LineTooLong, Patience
from server.settings import ProviderSettings

T = TypeVar("T")

ERROR_BODY_MAX_BYTES = 4096
DONE = b"[DONE]"
_REASONS = {"stop", "length", "tool_calls", "content_filter"}


class NotOurs(TidemarkError):
    """A chunk that is not of this wire format."""


class OpenAI:
    """One upstream. Connections are kept and used again."""

    def __init__(self, settings: ProviderSettings, api_key: str | None) -> None:
        self.models = settings.models
        self.context_tokens = settings.context_tokens
        self._settings = settings
        self._url = f"{settings.base_url.rstrip('/')}/chat/completions"
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = aiohttp.ClientSession(
            headers={**headers, "Accept": "text/event-stream"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_timeout_s),
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
            auto_decompress=True,
        )

    def continues(self, request: ModelRequest) -> bool:  # noqa: ARG002  the format has no way to ask for it
        return False

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta]:
        limits = self._settings
        try:
            async with self._http.post(self._url, data=_body(request), headers={"Content-Type": "application/json"}) as response:
                patience = Patience(limits.first_token_timeout_s, response.close)
                try:
                    if response.status != 200:
                        raise _refusal(
                            response.status, await response.content.read(ERROR_BODY_MAX_BYTES), response.headers.get("Retry-After")
                        )
                    async for delta in _deltas(response, patience, limits.idle_timeout_s):
                        yield delta
                except (aiohttp.ClientError, OSError) as error:
                    if patience.lost:
                        raise ProviderError("provider_timeout", "The model fell silent.", retryable=True) from error
                    raise
                finally:
                    patience.stop()
                if patience.lost:
                    raise ProviderError("provider_timeout", "The model fell silent.", retryable=True)
        except (aiohttp.ConnectionTimeoutError, TimeoutError) as error:
            raise ProviderError("provider_timeout", "The model's server could not be reached in time.", retryable=True) from error
        except (aiohttp.ClientError, OSError) as error:
            raise ProviderError(
                "provider_unavailable", f"The connection to the model's server failed: {error or type(error).__name__}.", retryable=True
            ) from error
        except (LineTooLong, NotOurs, orjson.JSONDecodeError, UnicodeDecodeError) as error:
            raise ProviderError(
                "provider_protocol", f"The model's server sent something that is not of its protocol: {error}.", retryable=True
            ) from error

    async def close(self) -> None:
        await self._http.close()


async def _deltas(response: aiohttp.ClientResponse, patience: Patience, idle_timeout_s: float) -> AsyncIterator[Delta]:
    """The deltas of a stream to its end; raises ProviderError where it ends without saying why."""
    parser, answer, chunk, done = EventParser(), _Answer(), b"-", False
    while chunk and not done:
        chunk = await response.content.readany()  # b"" at the end
        for data in parser.feed(chunk) if chunk else parser.end():
            patience.heard(idle_timeout_s)
            if data == DONE:
                done = True
                break
            for delta in answer.take(orjson.loads(data)):
                yield delta
    if patience.lost:
        raise ProviderError("provider_timeout", "The model fell silent.", retryable=True)
    for delta in answer.end():
        yield delta


class _Answer:
    """What has to be remembered between chunks: tool calls come in pieces, and the reason before the usage."""

    def __init__(self) -> None:
        self._calls: dict[int, dict[str, str]] = {}
        self._reason: str | None = None

    def take(self, chunk: Any) -> Iterator[Delta]:
        """The deltas of one chunk."""
        if not isinstance(chunk, dict):
            raise NotOurs("a chunk is no object")
        if error := chunk.get("error"):
            raise _upstream_error(error)
        if isinstance(usage := chunk.get("usage"), dict):
            yield Usage(_counts(usage))
        for choice in _typed(chunk, "choices", list)[:1]:
            delta = _typed(choice, "delta", dict)
            if reasoning := _typed(delta, "reasoning_content", str) or _typed(delta, "reasoning", str):
                yield ReasoningDelta(reasoning)
            if text := _typed(delta, "content", str) or _typed(delta, "refusal", str):
                yield TextDelta(text)
            for piece in _typed(delta, "tool_calls", list):
                self._add_call(piece)
            self._reason = _typed(choice, "finish_reason", str) or self._reason

    def _add_call(self, piece: Any) -> None:
        call = self._calls.setdefault(_typed(piece, "index", int), {"id": "", "name": "", "arguments": ""})
        function = _typed(piece, "function", dict)
        call["id"] = call["id"] or _typed(piece, "id", str)
        call["name"] += _typed(function, "name", str)
        call["arguments"] += _typed(function, "arguments", str)

    def end(self) -> Iterator[Delta]:
        """What is known only at the end; raises ProviderError when the stream was cut off."""
        if self._reason is None:
            raise ProviderError("provider_protocol", "The model's server ended the stream without saying why.", retryable=True)
        for index, call in sorted(self._calls.items()):
            yield ToolCall(call["id"] or f"call_{index}", call["name"], call["arguments"])
        yield Finish(self._reason if self._reason in _REASONS else "other")


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


def _body(request: ModelRequest) -> bytes:
    messages: list[dict[str, Any]] = [{"role": "system", "content": request.system_prompt}] if request.system_prompt else []
    for turn in request.turns:
        messages += _messages(turn.role, turn.parts)
    if request.prefix:
        messages += _messages("assistant", request.prefix)
    body: dict[str, Any] = {
        "model": request.model,
        "messages": messages,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": request.max_output_tokens,
    }
    if request.temperature is not None:
        body["temperature"] = request.temperature
    return orjson.dumps(body)


def _messages(role: str, parts: Parts) -> list[dict[str, Any]]:
    calls = [
        {"id": part["call_id"], "type": "function", "function": {"name": part["name"], "arguments": part["arguments"]}}
        for part in parts
        if part["type"] == "tool_call"
    ]
    results = [
        {"role": "tool", "tool_call_id": part["call_id"], "content": part["content"]} for part in parts if part["type"] == "tool_result"
    ]
    text = joined_text(parts)
    message: dict[str, Any] = {"role": role, "content": text or None, "tool_calls": calls} if calls else {"role": role, "content": text}
    return ([message] if text or calls else []) + results


def _counts(usage: dict[str, Any]) -> dict[str, Any]:
    counts = {"input_tokens": _typed(usage, "prompt_tokens", int), "output_tokens": _typed(usage, "completion_tokens", int)}
    cached = _typed(_typed(usage, "prompt_tokens_details", dict), "cached_tokens", int)
    reasoning = _typed(_typed(usage, "completion_tokens_details", dict), "reasoning_tokens", int)
    return counts | {k: v for k, v in (("cached_input_tokens", cached), ("reasoning_tokens", reasoning)) if v}


def _upstream_error(error: Any) -> ProviderError:
    message = str(error.get("message") if isinstance(error, dict) else error)[:500]
    return ProviderError("provider_unavailable", f"The model's server broke off: {message}", retryable=True)


def _refusal(status: int, body: bytes, retry_after: str | None) -> ProviderError:
    """What a status other than 200 means, with the server's own words where it sent JSON."""
    try:
        error = orjson.loads(body).get("error") or {}
        words = error.get("message", "") if isinstance(error, dict) else str(error)
        code = error.get("code") if isinstance(error, dict) else None
    except (orjson.JSONDecodeError, AttributeError):
        words, code = "", None
    message = f"The model's server answered {status}" + (f": {words[:500]}" if words else ".")
    retry_after_s = float(retry_after) if retry_after and retry_after.isascii() and retry_after.isdigit() else None
    if status == 429:
        return ProviderError("provider_rate_limited", message, retryable=True, retry_after_s=retry_after_s)
    if status >= 500 or status == 408:
        return ProviderError("provider_unavailable", message, retryable=True, retry_after_s=retry_after_s)
    if code == "context_length_exceeded":
        return ProviderError("context_too_long", message)
    return ProviderError("provider_refused", message)
