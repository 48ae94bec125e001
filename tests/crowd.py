"""A crowd: readers that cost so little that one process can be a thousand of them. Each keeps its mark and comes back with it."""

import asyncio
import json
import re
import resource
from time import monotonic
from typing import Any, cast
from urllib.parse import urlsplit

import pytest

from tests.client import COME_BACK_S, TERMINAL, Event

FRAME = re.compile(rb"id: (\d+)\nevent: ([a-z_]+)\ndata: ([^\n]*)\n\n")
SPARE_FILES = 200


class Crowd:
    """Readers of one answer at `urls`, which may change meanwhile. They share what they parsed, and have to agree on its bytes."""

    def __init__(self, events_url: str, key: str, urls: list[str], readers: int) -> None:
        self._path, self._key = events_url, key
        self._frames: dict[int, tuple[bytes, bytes, Any]] = {}
        self.urls = urls
        self.seen: list[list[Event]] = [[] for _ in range(readers)]

    async def read(self) -> None:
        """Reads until everybody has the end; a reader whose connection ends earlier goes to the next address."""
        async with asyncio.TaskGroup() as tasks:
            for n, seen in enumerate(self.seen):
                tasks.create_task(self._read(n, seen))

    async def _read(self, turn: int, seen: list[Event]) -> None:
        loop = asyncio.get_running_loop()
        while not is_over(seen):
            address = urlsplit(self.urls[turn % len(self.urls)])
            turn += 1
            try:
                made = await loop.create_connection(
                    lambda: _Connection(self, seen), address.hostname, address.port
                )
            except OSError:
                await asyncio.sleep(COME_BACK_S)
                continue
            transport, connection = cast("tuple[asyncio.Transport, _Connection]", made)
            try:
                transport.write(self.request(seen[-1].seq if seen else 0))
                await connection.closed
            finally:
                transport.close()

    def request(self, mark: int) -> bytes:
        last = f"Last-Event-ID: {mark}\r\n" if mark else ""
        head = f"GET {self._path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self._key}\r\nConnection: close\r\n"
        return f"{head}{last}\r\n".encode()

    def event(self, seq: int, type: bytes, data: bytes) -> Event:
        """The event of a frame; whatever has its number has to have its bytes."""
        known = self._frames.get(seq)
        if known is None:
            known = self._frames[seq] = type, data, json.loads(data)
        assert known[:2] == (type, data), (seq, known, data)
        return Event(seq, type.decode(), known[2], monotonic())


class _Connection(asyncio.Protocol):
    """One connection of a reader. It is over when it closes, or with the answer."""

    def __init__(self, crowd: Crowd, seen: list[Event]) -> None:
        self._crowd, self._seen = crowd, seen
        self._buffer = b""
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = 0
        for frame in FRAME.finditer(self._buffer):
            end = frame.end()
            self._seen.append(self._crowd.event(int(frame[1]), frame[2], frame[3]))
        self._buffer = self._buffer[end:]
        if is_over(self._seen):
            self._close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio calls it so
        self._close()

    def _close(self) -> None:
        if not self.closed.done():
            self.closed.set_result(None)


def is_over(seen: list[Event]) -> bool:
    return bool(seen) and seen[-1].type in TERMINAL


def room_for(connections: int) -> None:
    """Lets this process, and those it starts, hold so many connections; the test is skipped where that is not allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_FILES
    if soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            pytest.skip(f"a process may hold {hard} files open here, not {wanted}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
