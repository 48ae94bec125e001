"""The connection to a model's server: sends a request and streams the answer, within limits.

Errors of the connection are handled here for all formats; each format parses its own events.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson

from server.logs import log
from server.providers.adjustments import Negotiation
from server.providers.base import Delta, LeftOut, ProviderError
from server.providers.lenient import ProtocolViolation, error_in
from server.providers.reader import Reader, StreamParser
from server.providers.sse_parser import EVENT_MAX_BYTES, EventTooLong, SilenceTimeout
from server.providers.way_out import UnusableProxy, cause_of, is_permanent, open_session
from server.settings import ProviderSettings

ERROR_BODY_MAX_BYTES = 16_384
AFTER_FINISH_S = 5.0
"""How long a server may take to end a stream whose answer is complete; only usage may follow."""

BETWEEN_FINISHES_S = 30.0
"""How long a server that sends a finish reason with every piece may be silent before its answer
counts as complete."""

ErrorOf = Callable[[Any, int | None, str | None], ProviderError]
"""Interprets an error: the error itself, the status it came with, and `Retry-After`."""


def headers_with(
    settings: ProviderSettings, headers_of: Callable[[str], dict[str, str]], key: str
) -> dict[str, str]:
    """The headers of requests to a provider: those of its format, and those of its settings."""
    if settings.api_key_header and key:
        return {**headers_of(""), settings.api_key_header: key, **settings.extra_headers}
    return {**headers_of(key), **settings.extra_headers}


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
        self._http: aiohttp.ClientSession | UnusableProxy
        try:
            self._http = open_session(
                url,
                limits,
                {**headers, "Accept": "text/event-stream", "Content-Type": "application/json"},
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=limits.connect_timeout_s),
                auto_decompress=True,
            )
        except UnusableProxy as error:  # the other providers can be used
            self._http = error

    async def close(self) -> None:
        if isinstance(self._http, aiohttp.ClientSession):
            await self._http.close()

    async def deltas(
        self,
        body: Callable[[], dict[str, Any]],
        new_answer: Callable[[], StreamParser],
        negotiation: Negotiation,
    ) -> AsyncGenerator[Delta, None]:
        """The answer to `body` as it arrives. Raises ProviderError.

        `body` is called for every try, of which there are several if the server refuses a
        parameter. Some servers do so with status 200, as the first event.

        There is no other generator between the socket and the caller: each would cost every token.
        """
        idle_s = self._limits.idle_timeout_s
        answer_by = asyncio.get_running_loop().time() + self._limits.first_token_timeout_s
        refused = True
        while refused:
            refused = False
            async with self._request(body, negotiation, answer_by) as (response, sent, timeout):
                if negotiation.left_out:
                    yield LeftOut(negotiation.left_out)
                answer = new_answer()
                reader = Reader(answer)
                chunk = await _first(response, timeout, answer)
                while chunk is not None:
                    for delta in reader.read(chunk):
                        yield delta
                    if reader.error is not None:
                        refused = not answer.begun and negotiation.refused_later(sent, reader.error)
                        if not refused:
                            raise reader.error
                        break
                    if answer.done or not chunk:
                        break
                    if answer.begun:  # only a token ends the wait for the first one
                        negotiation.accepted()
                        timeout.reset(_patience_s(answer, idle_s))
                    chunk = await _next(response, timeout, answer)
                if refused:
                    continue
                if reader.malformed:
                    log.warning("events_malformed", url=self._url, number=len(reader.malformed))
                ending = reader.end()
                negotiation.accepted()
                for delta in ending:
                    yield delta

    @asynccontextmanager
    async def _request(
        self, body: Callable[[], dict[str, Any]], negotiation: Negotiation, answer_by: float
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, dict[str, Any], SilenceTimeout]]:
        """Sends a request: the response, the body that was accepted, and the response's timeout.

        Translates errors to ProviderError.
        """
        loop, timeout = asyncio.get_running_loop(), None
        try:
            async with asyncio.timeout_at(answer_by):
                response, sent = await self._accepted(body, negotiation)
            async with response:
                timeout = SilenceTimeout(answer_by - loop.time(), response.close)
                yield response, sent, timeout
        except ProviderError as error:
            raise self._without_key(error) from None
        except (
            aiohttp.ClientError,
            OSError,
            EventTooLong,
            ProtocolViolation,
            UnusableProxy,
        ) as error:
            raise self._without_key(
                _failure(error, timed_out=timeout is not None and timeout.expired)
            ) from error
        finally:
            if timeout is not None:
                timeout.stop()

    async def _accepted(
        self, body: Callable[[], dict[str, Any]], negotiation: Negotiation
    ) -> tuple[aiohttp.ClientResponse, dict[str, Any]]:
        """The first response that is no refusal which another try answers, and its request."""
        if isinstance(self._http, UnusableProxy):
            raise self._http
        while True:
            sent = body()
            # A redirect would be followed without the body.
            response = await self._http.post(
                self._url, data=orjson.dumps(sent), allow_redirects=False
            )
            if response.status == 200:
                return response, sent
            if response.status == 407:
                response.close()
                words = f"The proxy refused the request: 407 {response.reason}".rstrip()
                raise ProviderError("provider_refused", f"{words}.")
            async with response:
                error = error_in(await _read(response, ERROR_BODY_MAX_BYTES))
                retry_after = response.headers.get("Retry-After")
            refusal = self._error_of(error, response.status, retry_after)
            if not negotiation.refused(sent, refusal):
                raise refusal

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
        if not (answer.could_end if timeout.expired else answer.complete):
            raise
        return None
    if timeout.expired and not answer.could_end:
        raise _silence_error()
    return chunk


async def _read(response: aiohttp.ClientResponse, size: int, body: bytes = b"") -> bytes:
    """The body, or about the first `size` bytes of it."""
    while len(body) < size and (chunk := await response.content.readany()):
        body += chunk
    return body


def _patience_s(answer: StreamParser, idle_s: float) -> float:
    """How long the next event of an answer that has begun may take."""
    if answer.finished:
        return min(idle_s, AFTER_FINISH_S)
    return min(idle_s, BETWEEN_FINISHES_S) if answer.could_end else idle_s


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
    message = f"The connection to the model's server failed: {cause_of(error)}."
    return ProviderError("provider_unavailable", message, retryable=not is_permanent(error))


def _silence_error() -> ProviderError:
    return ProviderError("provider_timeout", "The model stopped responding.", retryable=True)
