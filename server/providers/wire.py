"""The wire of upstream servers: server-sent events out of bytes that may be cut anywhere, and a limit on silence."""

import asyncio
from collections.abc import Callable

LINE_MAX_BYTES = 1 << 20


class LineTooLong(ValueError):
    """The server sent a line of more than 1 MiB."""


class EventParser:
    """Takes bytes as they arrive; gives the data of each whole event. Comments and other fields are left out."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of the events that `chunk` completes; raises LineTooLong."""
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > LINE_MAX_BYTES:
            raise LineTooLong
        complete: list[bytes] = []
        for raw in lines:
            line = raw.removesuffix(b"\r")
            if not line:
                if self._data:
                    complete.append(b"\n".join(self._data))
                    self._data = []
            elif line.startswith(b"data:"):
                self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])
        return complete

    def end(self) -> list[bytes]:
        """The data of an event that the end of the stream completes, for servers that forget the last empty line."""
        return self.feed(b"\n\n")


class Patience:
    """Calls `give_up` after a silence. Hearing something costs one clock reading, not a timer."""

    def __init__(self, silence_s: float, give_up: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._give_up = give_up
        self._deadline = self._loop.time() + silence_s
        self._timer = self._loop.call_at(self._deadline, self._look)
        self.lost = False

    def heard(self, silence_s: float) -> None:
        """Something came; the next may take `silence_s`."""
        self._deadline = self._loop.time() + silence_s
        if self._deadline < self._timer.when():
            self._timer.cancel()
            self._timer = self._loop.call_at(self._deadline, self._look)

    def stop(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        if self._loop.time() < self._deadline - 0.001:
            self._timer = self._loop.call_at(self._deadline, self._look)
        else:
            self.lost = True
            self._give_up()
