"""The connection to a model's server: sends a request and streams the answer, within limits.

Errors of the connection are handled here for all formats; each format parses its own events.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from server.logs import log
from server.providers.base import Delta, ProviderError
from server.providers.lenient import ProtocolViolation, error_in
from server.providers.reader import Reader, StreamParser
from server.providers.sse_parser import EVENT_MAX_BYTES, EventTooLong, SilenceTimeout
from server.settings import ProviderSettings

ERROR_BODY_MAX_BYTES = 16_384
AFTER_FINISH_S = 5.0
"""How long a server may take to end a stream whose answer is complete; only usage may follow."""

ErrorOf = Callable[[Any, int | None, str | None], ProviderError]
"""Interprets an error: the error itself, the status it came with, and `Retry-After`."""


class Upstream:
    """One URL of one server. Connections are reused."""

    def __init__(
        self,
        url: str,
        headers: dict[str, str],
        key: str,
        limits: ProviderSettings,
        error_of: ErrorOf,
    ) -> None:
        self._url, self._key, self._limits, self._error_of = url, key, limits, error_of
        self._http = aiohttp.ClientSession(
            headers={**headers, "Accept": "text/event-stream", "Content-Type": "application/json"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=limits.connect_timeout_s),
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
            auto_decompress=True,
        )

    async def close(self) -> None:
        await self._http.close()

    async def deltas(self, body: bytes, answer: StreamParser) -> AsyncGenerator[Delta, None]:
        """The answer to `body` as it arrives. Raises ProviderError.

        There is no other generator between the socket and the caller: each would cost every token.
        """
        idle_s = self._limits.idle_timeout_s
        async with self._request(body) as (response, timeout):
            reader = Reader(answer)
            chunk = await _first(response, timeout, answer)
            while chunk is not None:
                for delta in reader.read(chunk):
                    yield delta
                if reader.error is not None:
                    raise reader.error
                if answer.done or not chunk:
                    break
                if answer.begun:  # only a token ends the wait for the first one
                    timeout.reset(min(idle_s, AFTER_FINISH_S) if answer.finished else idle_s)
                chunk = await _next(response, timeout, answer)
            if reader.malformed:
                log.warning("events_malformed", url=self._url, number=len(reader.malformed))
            for delta in reader.end():
                yield delta

    @asynccontextmanager
    async def _request(
        self, body: bytes
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, SilenceTimeout]]:
        """Sends a request: the response and its timeout. Translates errors to ProviderError."""
        loop, timeout = asyncio.get_running_loop(), None
        answer_by = loop.time() + self._limits.first_token_timeout_s
        try:
            async with asyncio.timeout_at(answer_by):
                # A redirect would be followed without the body.
                response = await self._http.post(self._url, data=body, allow_redirects=False)
            async with response:
                timeout = SilenceTimeout(answer_by - loop.time(), response.close)
                if response.status != 200:
                    error = error_in(await _read(response, ERROR_BODY_MAX_BYTES))
                    raise self._error_of(
                        error, response.status, response.headers.get("Retry-After")
                    )
                yield response, timeout
        except ProviderError as error:
            raise self._without_key(error) from None
        except (aiohttp.ClientError, OSError, EventTooLong, ProtocolViolation) as error:
            raise self._without_key(
                _failure(error, timed_out=timeout is not None and timeout.expired)
            ) from error
        finally:
            if timeout is not None:
                timeout.stop()

    def _without_key(self, error: ProviderError) -> ProviderError:
        """The error without the API key, which a server may repeat."""
        if not self._key or self._key not in error.message:
            return error
        message = error.message.replace(self._key, "…")
        return ProviderError(
            error.code, message, retryable=error.retryable, retry_after_s=error.retry_after_s
        )


async def _first(
    response: aiohttp.ClientResponse, timeout: SilenceTimeout, answer: StreamParser
) -> bytes | None:
    """The first bytes. A JSON object, an error or an unstreamed answer, becomes one event."""
    chunk = await _next(response, timeout, answer)
    if chunk is None or chunk.lstrip()[:1] != b"{":
        return chunk
    answer.done = True
    return (
        b"data: "
        + (await _read(response, EVENT_MAX_BYTES, chunk)).replace(b"\r", b" ").replace(b"\n", b" ")
        + b"\n\n"
    )


async def _next(
    response: aiohttp.ClientResponse, timeout: SilenceTimeout, answer: StreamParser
) -> bytes | None:
    """The next bytes, `b""` at the end; None if the connection broke after a complete answer."""
    try:
        chunk = await response.content.readany()
    except (aiohttp.ClientError, OSError):
        if not answer.complete:
            raise
        return None
    if timeout.expired and not answer.complete:
        raise _silence_error()
    return chunk


async def _read(response: aiohttp.ClientResponse, size: int, body: bytes = b"") -> bytes:
    """The body, or about the first `size` bytes of it."""
    while len(body) < size and (chunk := await response.content.readany()):
        body += chunk
    return body


def _failure(error: Exception, *, timed_out: bool) -> ProviderError:
    """The ProviderError for an error of the connection."""
    if isinstance(error, EventTooLong | ProtocolViolation):
        message = f"The model's server sent an invalid response: {error}."
        return ProviderError("provider_protocol", message, retryable=True)
    if timed_out:
        return _silence_error()
    if isinstance(error, TimeoutError):
        return ProviderError(
            "provider_timeout", "The model's server could not be reached in time.", retryable=True
        )
    message = f"The connection to the model's server failed: {str(error) or type(error).__name__}."
    return ProviderError("provider_unavailable", message, retryable=True)


def _silence_error() -> ProviderError:
    return ProviderError("provider_timeout", "The model stopped responding.", retryable=True)
