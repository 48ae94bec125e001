"""Streams over HTTP: sse-starlette's response with a sending loop of our own."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from time import monotonic
from typing import Final, Generic, NamedTuple, TypeVar

import anyio
from sse_starlette import EventSourceResponse
from starlette.requests import Request
from starlette.types import Send

from server.dialects import native
from server.identity.callers import Caller
from server.identity.presence import Presence
from server.serve.slow_readers import dropped_when_slow

T = TypeVar("T")


class Wrapping(NamedTuple):
    """What surrounds the events: the media type, the first bytes, and the heartbeat."""

    media_type: str
    open: bytes
    heartbeat: bytes


NATIVE: Final = Wrapping("text/event-stream", native.OPEN, native.HEARTBEAT)


class EventStream(EventSourceResponse, Generic[T]):
    """One reader's stream of batches, which `encode` turns into bytes; None is a heartbeat.

    The stock loop encodes every chunk and starts a timer for it; here chunks are bytes, and one
    task watches all readers. Raises TooMany when the account has too many streams open.
    """

    def __init__(
        self,
        batches: AsyncGenerator[T | None, None],
        encode: Callable[[T], bytes],
        *,
        request: Request,
        caller: Caller,
        headers: dict[str, str] | None = None,
        wrapping: Wrapping = NATIVE,
    ) -> None:
        super().__init__(
            batches,
            headers={"Cache-Control": "no-store", **(headers or {})},
            media_type=wrapping.media_type,
            ping=0,
        )
        self._batches, self._encode = batches, encode
        self._caller, self._wrapping = caller, wrapping
        self._presence: Presence = request.state.presence
        self._presence.check_room(caller)
        self._send_on: Send = request.state.send
        self._listening = anyio.CancelScope()
        self.sending_since: float | None = None

    def drop(self) -> None:
        """Ends this stream between two events."""
        self._listening.cancel()

    async def _stream_response(self, send: Send) -> None:
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        send = self._send_on
        await send({"type": "http.response.body", "body": self._wrapping.open, "more_body": True})
        with (
            dropped_when_slow(self),
            self._listening,
            self._presence.stream(self._caller, self.drop),
        ):
            async with aclosing(self._batches) as batches:
                async for batch in batches:
                    body = self._wrapping.heartbeat if batch is None else self._encode(batch)
                    self.sending_since = monotonic()
                    await send({"type": "http.response.body", "body": body, "more_body": True})
                    self.sending_since = None
        if self.sending_since is None:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    @staticmethod
    async def _listen_for_exit_signal() -> None:
        """Waits for ever: the feeds end their readers' streams when the process stops."""
        await asyncio.Event().wait()
