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

    One timer per stream, set once in 15 s: a timer for each event would cost as much as the event.
    With `early_s`, one heartbeat is due after that time already, unless something is sent just then.
    """

    def __init__(self, wake: Callable[[], None], *, early_s: float | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._wake, self._early_s = wake, early_s
        self._sent_at, self._is_early = self._loop.time(), False

    def __enter__(self) -> Self:
        if self._early_s is None:
            self._timer = self._loop.call_at(self._sent_at + HEARTBEAT_S, self._check)
        else:
            self._timer = self._loop.call_at(self._sent_at + self._early_s, self._be_early)
        return self

    def __exit__(self, *_error: object) -> None:
        self._timer.cancel()

    @property
    def due(self) -> bool:
        return self._is_early or self._loop.time() - self._sent_at >= HEARTBEAT_S

    def sent(self) -> None:
        """Notes that the stream is sent something, a heartbeat or events."""
        self._sent_at, self._is_early = self._loop.time(), False

    def _be_early(self) -> None:
        self._is_early = True
        self._wake()
        self._timer = self._loop.call_at(self._loop.time() + HEARTBEAT_S, self._check)

    def _check(self) -> None:
        last_at = self._sent_at
        if self.due:
            self._wake()
            last_at = self._loop.time()
        self._timer = self._loop.call_at(last_at + HEARTBEAT_S, self._check)
