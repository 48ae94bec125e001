"""Parsing of server-sent events from chunks of any size, and a timeout for silence."""

import asyncio
from collections.abc import Callable

EVENT_MAX_BYTES = 1 << 20
BOM = b"\xef\xbb\xbf"


class EventTooLong(ValueError):
    """A line or an event of the server exceeds 1 MiB."""

    def __str__(self) -> str:
        return f"an event of more than {EVENT_MAX_BYTES} bytes"


class EventParser:
    """Turns bytes into the data of events. Comments and other fields are ignored."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._size_bytes = 0
        self._after_cr, self._at_start = False, True

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of the events that `chunk` completes; raises EventTooLong."""
        lines = (self._rest + self._with_newlines(chunk)).split(b"\n")
        self._rest = lines.pop()
        complete: list[bytes] = []
        for line in lines:
            if self._at_start:
                self._at_start, line = False, line.removeprefix(BOM)  # noqa: PLW2901
            if not line:
                if self._data:
                    complete.append(b"\n".join(self._data))
                    self._data, self._size_bytes = [], 0
            elif line.startswith(b"data:"):
                self._add(line[6:] if line.startswith(b"data: ") else line[5:])
            elif line == b"data":
                self._add(b"")
        if self._size_bytes + len(self._rest) > EVENT_MAX_BYTES:
            raise EventTooLong
        return complete

    def end(self) -> list[bytes]:
        """The data of an unfinished event, for servers that omit the last empty line."""
        return self.feed(b"\n\n")

    def _add(self, data: bytes) -> None:
        self._data.append(data)
        self._size_bytes += len(data) + 1
        if self._size_bytes > EVENT_MAX_BYTES:
            raise EventTooLong

    def _with_newlines(self, chunk: bytes) -> bytes:
        """The chunk with LF line ends. A CRLF may be split between two chunks."""
        if not chunk:
            return chunk
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")
        self._after_cr = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in chunk else chunk


class SilenceTimeout:
    """Calls `on_timeout` after a silence. Activity costs one clock reading, not a timer."""

    def __init__(self, silence_s: float, on_timeout: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_timeout = on_timeout
        self._deadline = self._loop.time() + silence_s
        self._timer = self._loop.call_at(self._deadline, self._check)
        self.expired = False

    def reset(self, silence_s: float) -> None:
        """Starts the timeout again, with `silence_s`."""
        self._deadline = self._loop.time() + silence_s
        if self._deadline < self._timer.when():
            self._timer.cancel()
            self._timer = self._loop.call_at(self._deadline, self._check)

    def stop(self) -> None:
        self._timer.cancel()

    def _check(self) -> None:
        if self._loop.time() < self._deadline - 0.001:
            self._timer = self._loop.call_at(self._deadline, self._check)
        else:
            self.expired = True
            self._on_timeout()
