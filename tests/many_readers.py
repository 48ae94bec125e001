"""Lightweight readers: one process can run a thousand of them, each with a cursor of its own."""

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


class ManyReaders:
    """Readers of one answer at `urls`, which may change meanwhile.

    They share the events they parsed and must agree on their bytes.
    """

    def __init__(self, events_url: str, key: str, urls: list[str], readers: int) -> None:
        self._path, self._key = events_url, key
        self._frames: dict[int, tuple[bytes, bytes, Any]] = {}
        self.urls = urls
        self.seen: list[list[Event]] = [[] for _ in range(readers)]

    async def read(self) -> None:
        """Read until every reader has the end; one that is disconnected resumes at the next URL."""
        async with asyncio.TaskGroup() as tasks:
            for n, seen in enumerate(self.seen):
                tasks.create_task(self._read(n, seen))

    async def _read(self, turn: int, seen: list[Event]) -> None:
        loop = asyncio.get_running_loop()
        while not has_ended(seen):
            address = urlsplit(self.urls[turn % len(self.urls)])
            turn += 1
            try:
                connected = await loop.create_connection(
                    lambda: _Connection(self, seen), address.hostname, address.port
                )
            except OSError:
                await asyncio.sleep(COME_BACK_S)
                continue
            transport, connection = cast("tuple[asyncio.Transport, _Connection]", connected)
            try:
                transport.write(self.request(seen[-1].seq if seen else 0))
                await connection.closed
            finally:
                transport.close()

    def request(self, cursor: int) -> bytes:
        last = f"Last-Event-ID: {cursor}\r\n" if cursor else ""
        head = (
            f"GET {self._path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "
            f"{self._key}\r\nConnection: close\r\n"
        )
        return f"{head}{last}\r\n".encode()

    def event(self, seq: int, type: bytes, data: bytes) -> Event:
        """The event of a frame; frames with the same number must have the same bytes."""
        known = self._frames.get(seq)
        if known is None:
            known = self._frames[seq] = type, data, json.loads(data)
        assert known[:2] == (type, data), (seq, known, data)
        return Event(seq, type.decode(), known[2], monotonic())


class _Connection(asyncio.Protocol):
    """One connection of a reader; it ends with the answer or when it is closed."""

    def __init__(self, readers: ManyReaders, seen: list[Event]) -> None:
        self._readers, self._seen = readers, seen
        self._buffer = b""
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = 0
        for frame in FRAME.finditer(self._buffer):
            end = frame.end()
            self._seen.append(self._readers.event(int(frame[1]), frame[2], frame[3]))
        self._buffer = self._buffer[end:]
        if has_ended(self._seen):
            self._close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's signature
        self._close()

    def _close(self) -> None:
        if not self.closed.done():
            self.closed.set_result(None)


def has_ended(seen: list[Event]) -> bool:
    return bool(seen) and seen[-1].type in TERMINAL


def allow_connections(connections: int) -> None:
    """Raise the limit of open files for this process and its children, or skip the test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_FILES
    if soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            pytest.skip(f"a process may hold {hard} files open here, not {wanted}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
