"""uvicorn's HTTP protocol with three limits it lacks: connections, head size, and head time."""

import asyncio
from typing import Final

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_MAX_BYTES: Final = 64 * 1024
HEAD_WITHIN_S: Final = 20.0

_FULL_BODY: Final = orjson.dumps(
    {
        "type": "urn:tidemark:problem:too_many_connections",
        "title": "Service unavailable",
        "status": 503,
        "detail": "This process has as many connections open as it may have.",
        "code": "too_many_connections",
        "retry_after_s": 1,
    }
)
_FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n"
    b"Retry-After: 1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
) % (len(_FULL_BODY), _FULL_BODY)


class BoundedProtocol(HttpToolsProtocol):
    """One connection.

    Beyond `limit_concurrency` connections it answers 503 without reading a request. A head that is
    too large is answered with 400; one that does not arrive in time is not waited for.
    """

    _head_bytes = 0
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        if self.limit_concurrency is not None and len(self.connections) > self.limit_concurrency:
            transport.write(_FULL)
            transport.close()
            return
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        self._wait_for_head()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_MAX_BYTES:
            raise httptools.HttpParserError(
                f"the head of a request exceeds the limit of {HEAD_MAX_BYTES} bytes"
            )

    def _wait_for_head(self) -> None:
        self._stop_waiting()
        self._waiting = self.loop.call_later(HEAD_WITHIN_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
