"""Streamed responses: sse-starlette's response with a sending loop of our own."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from time import monotonic
from typing import ClassVar, Final, Generic, NamedTuple, TypeVar

import anyio
from sse_starlette import EventSourceResponse
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from server.dialects import native
from server.errors import Refused
from server.identity.callers import Caller
from server.identity.presence import Presence, Slot
from server.serve.refusals import log_refusal
from server.serve.slow_readers import dropped_when_slow

T = TypeVar("T")


class Wrapping(NamedTuple):
    """What surrounds the events: the media type, the first bytes, and the heartbeat."""

    media_type: str
    open: bytes
    heartbeat: bytes


NATIVE: Final = Wrapping("text/event-stream", native.OPEN, native.HEARTBEAT)


class Streamed(EventSourceResponse, Generic[T]):
    """A response that one reader receives batch by batch; None is a heartbeat.

    The stock loop encodes every chunk and starts a timer for it; here chunks are bytes, and one
    task watches all readers. Raises TooMany when the account has too many streams open.
    """

    ends_anywhere: ClassVar[bool]
    """Whether the stream may end between any two batches, because its reader resumes it.

    Otherwise the connection breaks off where it ends early, so that no client takes a part for the
    whole.
    """

    def __init__(
        self,
        batches: AsyncGenerator[T | None, None],
        encode: Callable[[T], bytes],
        *,
        request: Request,
        caller: Caller,
        slot: Slot | None = None,
        headers: dict[str, str] | None = None,
        wrapping: Wrapping,
    ) -> None:
        super().__init__(
            batches,
            headers={"Cache-Control": "no-store", **(headers or {})},
            media_type=wrapping.media_type,
            ping=0,
        )
        self._batches, self._encode, self._wrapping = batches, encode, wrapping
        self._state, self._path = request.state, request.scope["path"]
        self._listening = anyio.CancelScope()
        self.sending_since: float | None = None
        presence: Presence = request.state.presence
        self._slot = slot or presence.reserve(caller)

    def drop(self) -> None:
        """Ends this stream between two batches."""
        self._listening.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._slot.release()

    async def _stream_response(self, send: Send) -> None:
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        send = self._state.send
        self._slot.end = self.drop
        is_whole = False
        with dropped_when_slow(self), self._listening:
            try:
                await self._send_batches(send)
                is_whole = True
            except Refused as refused:  # what it shows is gone, or the database is
                log_refusal(refused, self._state.request_id, self._path)
        if is_whole or (self.ends_anywhere and self.sending_since is None):
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            self._state.abort()
            await anyio.sleep_forever()  # until the connection is lost, which ends this response

    async def _send_batches(self, send: Send) -> None:
        body = self._wrapping.open
        self.sending_since = monotonic()
        await send({"type": "http.response.body", "body": body, "more_body": True})
        self.sending_since = None
        async with aclosing(self._batches) as batches:
            async for batch in batches:
                body = self._wrapping.heartbeat if batch is None else self._encode(batch)
                self.sending_since = monotonic()
                await send({"type": "http.response.body", "body": body, "more_body": True})
                self.sending_since = None

    @staticmethod
    async def _listen_for_exit_signal() -> None:
        """Waits for ever: the feeds end their readers' streams when the process stops."""
        await asyncio.Event().wait()


class EventStream(Streamed[T]):
    """A stream of events, which its reader resumes."""

    ends_anywhere = True


class Download(Streamed[bytes]):
    """A file that is generated while it is sent."""

    ends_anywhere = False

    def __init__(
        self,
        chunks: AsyncGenerator[bytes, None],
        *,
        request: Request,
        caller: Caller,
        name: str,
        media_type: str,
    ) -> None:
        super().__init__(
            chunks,
            bytes,
            request=request,
            caller=caller,
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
            wrapping=Wrapping(media_type, b"", b""),
        )
