"""The connection to a model's server: sends a request and streams the answer, within limits.

What the events mean is the format's matter; what can go wrong on the way is told here, once for all formats.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import aiohttp

from server.providers.base import Delta, ProviderError
from server.providers.lenient import ProtocolViolation, error_in
from server.providers.sse_parser import EVENT_MAX_BYTES, EventParser, EventTooLong, Patience
from server.settings import ProviderSettings

ERROR_BODY_MAX_BYTES = 16_384
AFTER_FINISH_S = 5.0
"""How long a server may take to end a stream whose answer is complete; only usage may follow."""

ErrorOf = Callable[[Any, int | None, str | None], ProviderError]
"""Interprets an error: the error itself, the status it came with, and `Retry-After`."""


class Reading(Protocol):
    """Parses one answer, and keeps the state between its events."""

    begun: bool
    """Whether the model has sent anything, even if it is not passed on yet."""

    done: bool
    """Whether the server has announced the end of the stream."""

    @property
    def whole(self) -> bool:
        """Whether the finish reason is known; then it does not matter how the connection ends."""
        ...

    def take(self, data: bytes) -> Iterable[Delta]:
        """The deltas of one event. Raises ProviderError and ProtocolViolation."""
        ...

    def end(self) -> Iterable[Delta]:
        """The deltas known only at the end. Raises ProviderError if the stream was cut off."""
        ...


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

    async def deltas(self, body: bytes, reading: Reading) -> AsyncGenerator[Delta, None]:
        """The answer to `body` as it arrives. Raises ProviderError.

        This is the only generator between the socket and whoever reads: each further one would cost every token.
        """
        idle_s = self._limits.idle_timeout_s
        async with self._asked(body) as (response, patience):
            parser = EventParser()
            chunk = await _first(response, patience, reading)
            while chunk is not None:
                for data in parser.feed(chunk) if chunk else parser.end():
                    if data:  # some servers send empty events as heartbeats
                        for delta in reading.take(data):
                            yield delta
                    if reading.done:
                        break
                if reading.done or not chunk:
                    break
                if reading.begun:  # nothing but a token ends the wait for the first one
                    patience.reset(min(idle_s, AFTER_FINISH_S) if reading.whole else idle_s)
                chunk = await _next(response, patience, reading)
            for delta in reading.end():
                yield delta

    @asynccontextmanager
    async def _asked(self, body: bytes) -> AsyncIterator[tuple[aiohttp.ClientResponse, Patience]]:
        """The response to `body`, and its timeout. Raises ProviderError until it has been read."""
        loop, patience = asyncio.get_running_loop(), None
        answer_by = loop.time() + self._limits.first_token_timeout_s
        try:
            async with asyncio.timeout_at(answer_by):
                # A redirect would be followed without the body.
                response = await self._http.post(self._url, data=body, allow_redirects=False)
            async with response:
                patience = Patience(answer_by - loop.time(), response.close)
                if response.status != 200:
                    error = error_in(await _read(response, ERROR_BODY_MAX_BYTES))
                    raise self._error_of(
                        error, response.status, response.headers.get("Retry-After")
                    )
                yield response, patience
        except ProviderError as error:
            raise self._without_key(error) from None
        except (aiohttp.ClientError, OSError, EventTooLong, ProtocolViolation) as error:
            raise self._without_key(
                _failure(error, fell_silent=patience is not None and patience.lost)
            ) from error
        finally:
            if patience is not None:
                patience.stop()

    def _without_key(self, error: ProviderError) -> ProviderError:
        """The error without the API key, which a server may repeat."""
        if not self._key or self._key not in error.message:
            return error
        message = error.message.replace(self._key, "…")
        return ProviderError(
            error.code, message, retryable=error.retryable, retry_after_s=error.retry_after_s
        )


async def _first(
    response: aiohttp.ClientResponse, patience: Patience, reading: Reading
) -> bytes | None:
    """The first bytes. A JSON object is an error, or an answer that is not streamed: one event."""
    chunk = await _next(response, patience, reading)
    if chunk is None or chunk.lstrip()[:1] != b"{":
        return chunk
    reading.done = True
    return (
        b"data: "
        + (await _read(response, EVENT_MAX_BYTES, chunk)).replace(b"\r", b" ").replace(b"\n", b" ")
        + b"\n\n"
    )


async def _next(
    response: aiohttp.ClientResponse, patience: Patience, reading: Reading
) -> bytes | None:
    """The next bytes, `b""` at the end; None if the connection broke after a complete answer."""
    try:
        chunk = await response.content.readany()
    except (aiohttp.ClientError, OSError):
        if not reading.whole:
            raise
        return None
    if patience.lost and not reading.whole:
        raise _silence()
    return chunk


async def _read(response: aiohttp.ClientResponse, size: int, body: bytes = b"") -> bytes:
    """The body, or about the first `size` bytes of it."""
    while len(body) < size and (chunk := await response.content.readany()):
        body += chunk
    return body


def _failure(error: Exception, *, fell_silent: bool) -> ProviderError:
    """The ProviderError for an error of the connection."""
    if isinstance(error, EventTooLong | ProtocolViolation):
        message = f"The model's server sent something that is not of its protocol: {error}."
        return ProviderError("provider_protocol", message, retryable=True)
    if fell_silent:
        return _silence()
    if isinstance(error, TimeoutError):
        return ProviderError(
            "provider_timeout", "The model's server could not be reached in time.", retryable=True
        )
    message = f"The connection to the model's server failed: {str(error) or type(error).__name__}."
    return ProviderError("provider_unavailable", message, retryable=True)


def _silence() -> ProviderError:
    return ProviderError("provider_timeout", "The model fell silent.", retryable=True)
