"""Any server that speaks OpenAI's `/chat/completions`, streamed: https://platform.openai.com/docs/api-reference/chat-streaming"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import orjson

from server.parts import Parts, joined_text
from server.providers.base import Delta, ModelRequest, ProviderError
from server.providers.openai_chunks import Answer, NotOurs, refusal
from server.providers.wire import EVENT_MAX_BYTES, EventParser, EventTooLong, Patience
from server.settings import ProviderSettings

ERROR_BODY_MAX_BYTES = 16_384
DONE = b"[DONE]"
AFTER_FINISH_S = 5.0
"""How long a server may take to end a stream whose answer is complete: what may still come is the usage."""


class OpenAI:
    """One upstream. Connections are kept and used again."""

    def __init__(self, settings: ProviderSettings, api_key: str | None) -> None:
        self.models = settings.models
        self.context_tokens = settings.context_tokens
        self._settings = settings
        self._url = completions_url(settings.base_url)
        self._key = (api_key or "").strip()
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._http = aiohttp.ClientSession(
            headers={**headers, "Accept": "text/event-stream", "Content-Type": "application/json"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_timeout_s),
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
            auto_decompress=True,
        )

    def continues(self, request: ModelRequest) -> bool:  # noqa: ARG002  the format has no way to ask for it
        return False

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        try:
            async with aclosing(self._stream(self._body(request))) as deltas:
                async for delta in deltas:
                    yield delta
        except ProviderError as error:
            if self._key and self._key in error.message:  # a server that repeats what it was sent
                raise ProviderError(
                    error.code, error.message.replace(self._key, "…"), retryable=error.retryable, retry_after_s=error.retry_after_s
                ) from None
            raise
        except TimeoutError as error:
            raise ProviderError("provider_timeout", "The model's server could not be reached in time.", retryable=True) from error
        except (aiohttp.ClientError, OSError) as error:
            reason = str(error).replace(self._key or "\0", "…") or type(error).__name__
            raise ProviderError(
                "provider_unavailable", f"The connection to the model's server failed: {reason}.", retryable=True
            ) from error
        except (EventTooLong, NotOurs) as error:
            raise ProviderError(
                "provider_protocol", f"The model's server sent something that is not of its protocol: {error}.", retryable=True
            ) from error

    async def close(self) -> None:
        await self._http.close()

    async def _stream(self, body: bytes) -> AsyncGenerator[Delta, None]:
        limits, loop = self._settings, asyncio.get_running_loop()
        answer_by = loop.time() + limits.first_token_timeout_s
        async with asyncio.timeout_at(answer_by):
            # A redirect would be followed without the question.
            response = await self._http.post(self._url, data=body, allow_redirects=False)
        async with response:
            patience = Patience(answer_by - loop.time(), response.close)
            try:
                if response.status != 200:
                    words = await _read(response, ERROR_BODY_MAX_BYTES)
                    raise refusal(response.status, words, response.headers.get("Retry-After"))
                async for delta in _deltas(response, patience, limits.idle_timeout_s):
                    yield delta
            except (aiohttp.ClientError, OSError) as error:
                if patience.lost:
                    raise ProviderError("provider_timeout", "The model fell silent.", retryable=True) from error
                raise
            finally:
                patience.stop()

    def _body(self, request: ModelRequest) -> bytes:
        messages: list[dict[str, Any]] = [{"role": "system", "content": request.system_prompt}] if request.system_prompt else []
        for turn in request.turns:
            messages += _messages(turn.role, turn.parts)
        messages += _messages("assistant", [part for part in request.prefix if part["type"] == "text"])
        # OpenAI's own newer models refuse the name that everybody else knows.
        limit = "max_completion_tokens" if (urlsplit(self._url).hostname or "").endswith("openai.com") else "max_tokens"
        body: dict[str, Any] = {
            "model": request.model,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            limit: request.max_output_tokens,
        }
        if request.temperature is not None:
            body["temperature"] = request.temperature
        return orjson.dumps(body)


def completions_url(base_url: str) -> str:
    """Where to ask: a base without a path is that of a whole server, whose interface is under /v1; any other is used as it is."""
    scheme, host, path, query, _ = urlsplit(base_url)
    return urlunsplit((scheme, host, f"{path.rstrip('/') or '/v1'}/chat/completions", query, ""))


async def _deltas(response: aiohttp.ClientResponse, patience: Patience, idle_timeout_s: float) -> AsyncIterator[Delta]:
    """The deltas of a stream to its end; raises ProviderError where it ends without saying why."""
    parser, answer, done, first = EventParser(), Answer(), False, True
    while not done:
        try:
            chunk = await response.content.readany()  # b"" at the end
        except (aiohttp.ClientError, OSError):
            if answer.reason is None:
                raise
            break  # the answer is whole; how the connection ends is no matter
        if patience.lost and answer.reason is None:
            raise ProviderError("provider_timeout", "The model fell silent.", retryable=True)
        if first and chunk.lstrip()[:1] == b"{":  # no stream: an error, or a server that cannot stream
            chunk = b"data: " + (await _read(response, EVENT_MAX_BYTES, chunk)).replace(b"\r", b" ").replace(b"\n", b" ") + b"\n\n"
            done = True
        first = False
        for data in parser.feed(chunk) if chunk else parser.end():
            if data == DONE:
                done = True
                break
            for delta in _of(answer, data):
                yield delta
        if not chunk:
            break
        if answer.begun:  # until then nothing prolongs the wait for the first token; after it, any sign of life does
            patience.heard(idle_timeout_s if answer.reason is None else min(idle_timeout_s, AFTER_FINISH_S))
    for delta in answer.end(done=done):
        yield delta


def _of(answer: Answer, data: bytes) -> Iterator[Delta]:
    """The deltas of an event; some servers send empty ones to show that they live."""
    return answer.take(data) if data else iter(())


async def _read(response: aiohttp.ClientResponse, size: int, body: bytes = b"") -> bytes:
    """The body to its end, or to about `size` bytes of it."""
    while len(body) < size and (chunk := await response.content.readany()):
        body += chunk
    return body


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
