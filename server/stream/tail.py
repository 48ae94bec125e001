"""The tail: one subscription connection per process, for messages as they are published.

It only makes delivery faster. A listener is called when its channel becomes live, and again after
every reconnection; it then reads what it missed from the log or from SQL.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from server.logs import log
from server.stream.link import Link, LinkLost

PING_EVERY_S = 2.0
SILENCE_S = 4.0
RECONNECT_MIN_S, RECONNECT_MAX_S = 0.05, 1.0


class Listener(NamedTuple):
    """Callbacks of a channel: `live` when messages flow (again), `message` with each message."""

    live: Callable[[], None]
    message: Callable[[bytes], None]


class Tail:
    """The subscriptions of one process. `listen` and `leave` may be called at any time."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._listeners: dict[bytes, Listener] = {}
        self._link: Link | None = None

    def listen(self, channel: bytes, listener: Listener) -> None:
        """Subscribes; `listener.live` is called once messages flow."""
        self._listeners[channel] = listener
        self._send("SUBSCRIBE", channel)

    def leave(self, channel: bytes) -> None:
        """Unsubscribes."""
        if self._listeners.pop(channel, None):
            self._send("UNSUBSCRIBE", channel)

    async def run(self) -> None:
        """Keeps the connection open and all channels subscribed, until cancelled."""
        pause_s = RECONNECT_MIN_S
        while True:
            link = None
            try:
                link = self._link = await Link.connect(self._url)
                if self._listeners:
                    self._send("SUBSCRIBE", *self._listeners)
                pause_s = RECONNECT_MIN_S
                await self._receive(link)
            except LinkLost:
                pass
            finally:
                self._link = None
                if link is not None:
                    await link.close()
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, RECONNECT_MAX_S)

    async def _receive(self, link: Link) -> None:
        while True:
            silent_s = 0.0
            while True:
                try:
                    async with asyncio.timeout(PING_EVERY_S):
                        messages = await link.receive()
                    break
                except TimeoutError:
                    silent_s += PING_EVERY_S
                    if link.demoted:
                        raise LinkLost("the server is a replica now") from None
                    if silent_s >= SILENCE_S:
                        raise LinkLost(f"no data for {SILENCE_S:g} s") from None
                    link.send([("PING",)])
            for message in messages:
                if isinstance(message, Exception):
                    raise LinkLost(str(message))  # loading, or not allowed: reconnect later
                self._deliver(*message)

    def _deliver(self, kind: bytes, *rest: bytes) -> None:
        if kind not in (b"message", b"subscribe") or not (listener := self._listeners.get(rest[0])):
            return
        try:
            if kind == b"message":
                listener.message(rest[1])
            else:
                listener.live()
        except Exception:  # a bad message must not disconnect the other channels
            log.exception("message_handler_failed", channel=rest[0])

    def _send(self, *command: bytes | str) -> None:
        if self._link is not None:
            try:
                self._link.send([command])
            except LinkLost:
                self._link = None  # `run` notices as it reads, and subscribes to everything again
