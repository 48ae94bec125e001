"""Server-sent events going out: sse-starlette's response with a sending loop of our own, and readers that stop reading."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from time import monotonic
from typing import Any, Generic, Protocol, TypeVar

import anyio
from sse_starlette import EventSourceResponse
from starlette.requests import Request
from starlette.types import Send

from server.dialects import native
from server.identity.callers import Caller
from server.identity.presence import Presence
from server.logs import log

T = TypeVar("T")

STUCK_S = 20.0
CHECK_EVERY_S = 1.0

_open: "set[EventStream[Any]]" = set()


class Encodable(Protocol[T]):
    """Some events, which may keep what was made of them for others."""

    def encoded(self, encode: Callable[[list[T]], bytes], /) -> bytes: ...


class EventStream(EventSourceResponse, Generic[T]):
    """One reader's stream.

    The stock loop encodes and guards every chunk by itself; here a chunk is ready bytes, and one task guards all readers.
    """

    def __init__(
        self,
        batches: AsyncGenerator[Encodable[T] | None, None],
        encode: Callable[[list[T]], bytes],
        *,
        request: Request,
        caller: Caller,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(batches, headers={"Cache-Control": "no-store", **(headers or {})}, ping=0)
        self._batches, self._encode, self._caller = batches, encode, caller
        self._presence: Presence = request.state.presence
        self._send_on: Send = request.state.send
        self._listening = anyio.CancelScope()
        self.sending_since: float | None = None

    def end(self) -> None:
        """Ends this stream between two events."""
        self._listening.cancel()

    async def _stream_response(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        send = self._send_on
        await send({"type": "http.response.body", "body": native.OPEN, "more_body": True})
        _open.add(self)
        try:
            with self._listening, self._presence.stream(self._caller, self.end):
                async with aclosing(self._batches) as batches:
                    async for batch in batches:
                        body = native.HEARTBEAT if batch is None else batch.encoded(self._encode)
                        self.sending_since = monotonic()
                        await send({"type": "http.response.body", "body": body, "more_body": True})
                        self.sending_since = None
        finally:
            _open.discard(self)
        if self.sending_since is None:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    @staticmethod
    async def _listen_for_exit_signal() -> None:
        """Waits for ever: the feeds end their readers' streams when the process stops."""
        await asyncio.Event().wait()


async def drop_stuck_readers() -> None:
    """Ends the streams of readers that took nothing for 20 s, until cancelled. They may come back with their mark."""
    while True:
        await asyncio.sleep(CHECK_EVERY_S)
        now = monotonic()
        for stream in list(_open):
            if stream.sending_since is not None and now - stream.sending_since > STUCK_S:
                log.info("reader_dropped", stuck_s=STUCK_S)
                stream.end()
