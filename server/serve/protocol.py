"""uvicorn's HTTP protocol with three limits it lacks: connections, head size, and head time."""

import asyncio
from typing import Final

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from server.errors import Overloaded, Refused, Unreadable
from server.ids import Prefix, new_id
from server.logs import log
from server.serve.refusals import REQUEST_ID_HEADER, problem

HEAD_MAX_BYTES: Final = 64 * 1024
HEAD_WITHIN_S: Final = 20.0


class BoundedProtocol(HttpToolsProtocol):
    """One connection.

    Beyond `limit_concurrency` connections, a new one receives 503, and its request is not read. A
    head that is too large receives 400. Where a request begins and its head does not arrive in
    time, the connection is closed. `state["abort"]` of a request breaks its connection off.
    """

    _head_bytes = 0
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        # uvicorn would answer every request of every open connection with 503 at this limit.
        connections_max, self.limit_concurrency = self.limit_concurrency, None
        if connections_max is not None and len(self.connections) > connections_max:
            self._refuse(Overloaded(connections_max))
        else:
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # uvicorn's keep-alive timer ends with the first byte, even if that begins no request: it
        # can be an empty line, or belong to a body that was answered before it was read.
        if self._waiting is None and self._is_between_requests():
            self._wait_for_head()

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        self._wait_for_head()
        super().on_message_begin()
        self.scope["state"]["abort"] = self.transport.abort

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        if self._head_bytes > HEAD_MAX_BYTES:
            detail = f"The head of the request exceeds the limit of {HEAD_MAX_BYTES} bytes."
            self._refuse(Unreadable("head_too_large", detail, limit=HEAD_MAX_BYTES))
        else:
            self._refuse(Unreadable("invalid_http", msg))

    def _refuse(self, refused: Refused) -> None:
        """Answers what is no request for the application, and closes the connection."""
        request_id = new_id(Prefix.REQUEST)
        log.warning("connection_refused", request=request_id, code=refused.code)
        response = problem(refused, request_id)
        response.headers.update({REQUEST_ID_HEADER: request_id, "Connection": "close"})
        headers = b"".join([b"%s: %s\r\n" % header for header in response.raw_headers])
        head = STATUS_LINE[refused.status] + headers
        self.transport.write(b"%s\r\n%s" % (head, response.body))
        self.transport.close()

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_MAX_BYTES:
            raise httptools.HttpParserError("The head is too large.")

    def _is_between_requests(self) -> bool:
        """Whether no request is served; a connection that became a WebSocket is no longer ours."""
        is_ours = self in self.connections
        return is_ours and (self.cycle is None or self.cycle.response_complete)

    def _wait_for_head(self) -> None:
        self._stop_waiting()
        self._waiting = self.loop.call_later(HEAD_WITHIN_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
