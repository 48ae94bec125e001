"""Heartbeats: what a stream sends when it has sent nothing else for 15 s.

Proxies close connections on which nothing is sent. What counts is the time since the last write:
a reader is woken for many reasons, and of most of them it has nothing to write.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Self

HEARTBEAT_S: Final = 15.0


class Heartbeat:
    """The silence of one stream; calls `wake` when a heartbeat is due, which stays due until `sent`.

    The first may be due earlier, after `first_s`.

    One timer per stream, set once in 15 s: a timer for each event would cost as much as the event.
    """

    def __init__(self, wake: Callable[[], None], *, first_s: float = HEARTBEAT_S) -> None:
        self._loop = asyncio.get_running_loop()
        self._wake, self._after_s = wake, first_s
        self._sent_at = self._loop.time()

    def __enter__(self) -> Self:
        self._timer = self._loop.call_at(self._sent_at + self._after_s, self._check)
        return self

    def __exit__(self, *_error: object) -> None:
        self._timer.cancel()

    @property
    def due(self) -> bool:
        return self._loop.time() - self._sent_at >= self._after_s

    def sent(self) -> None:
        """Notes that the stream is sent something, a heartbeat or events."""
        if self.due:
            self._after_s = HEARTBEAT_S
        self._sent_at = self._loop.time()

    def _check(self) -> None:
        last_at = self._sent_at
        if self.due:
            self._wake()
            last_at = self._loop.time()
        self._timer = self._loop.call_at(last_at + self._after_s, self._check)
