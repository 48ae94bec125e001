"""A link that can fail: a TCP proxy in its own thread, in front of a server on a Unix socket.

A silenced connection stays silent forever, like one whose peer vanished without closing it; only
new connections work once the proxy passes bytes again. Neither end of a silent connection sees the
other end close.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

T = TypeVar("T")

CHUNK_BYTES = 65_536
REMEMBERED_BYTES = 1_000
RESET = struct.pack("ii", 1, 0)

Then = Literal["silence", "cut", "hold", "lose reply"]


class Mode(Enum):
    """What happens to the bytes."""

    PASS = "both ways"
    SILENT = "nothing arrives in either direction, and neither end gets an error"
    DEAF = "commands arrive, replies do not"
    LATE = "nothing arrives now, all of it later"
    GONE = (
        "existing connections are reset, new ones once the client sends something,"
        " like a load balancer without a backend"
    )


@dataclass(eq=False)
class Trap:
    """Springs once, at the next bytes of a client that contain `match`.

    With `after`, the connection must have sent these bytes before.
    """

    match: bytes
    then: Then
    after: bytes
    sprung: threading.Event = field(default_factory=threading.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)


class Connection:
    """One connection through the proxy."""

    def __init__(self, client: asyncio.StreamWriter, upstream: asyncio.StreamWriter) -> None:
        self.client, self.upstream = client, upstream
        self.commands_lost = self.replies_lost = self.next_reply_lost = False
        self.recent_bytes = b""

    def cut(self) -> None:
        """Close it with a RST."""
        with contextlib.suppress(OSError, AttributeError):  # a closed TLS transport has no socket
            self.client.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, RESET
            )
        self.client.transport.abort()


class Proxy:
    """Listens on a local `port`, with TLS if there is a `tls`, and connects to `upstream`.

    Use it as a context manager.
    """

    def __init__(self, upstream: Path, tls: ssl.SSLContext | None = None) -> None:
        self._upstream, self._tls = upstream, tls
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._mode = Mode.PASS
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._connections: set[Connection] = set()
        self._traps: list[Trap] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.port: int = self._do(self._listen())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def be(self, mode: Mode) -> None:
        """Set the mode; connections that became silent or deaf stay so."""
        self._do(self._be(mode))

    def lead_to(self, upstream: Path) -> None:
        """Connect to another server from now on; connections that exist stay."""
        self._upstream = upstream

    def cut(self) -> None:
        """Reset every connection."""
        self._do(self._cut())

    def mend(self) -> None:
        """Remove every trap, and pass all new bytes."""
        self._do(self._mend())

    def trap(self, match: bytes, then: Then, *, after: bytes = b"") -> Trap:
        """When bytes that contain `match` are about to be forwarded, do `then`.

        `silence` and `cut` affect all connections; `hold` delays the bytes until `release`; `lose
        reply` drops the reply to them.
        """
        trap = Trap(match, then, after)
        self._do(self._set(trap))
        return trap

    def release(self, trap: Trap) -> None:
        """Forward the bytes that a trap holds."""
        self._loop.call_soon_threadsafe(trap.released.set)

    def _do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        return int(self._server.sockets[0].getsockname()[1])

    async def _close(self) -> None:
        self._server.close()
        await self._mend()
        for connection in self._connections:
            connection.cut()
            connection.upstream.transport.abort()
        await asyncio.gather(*self._tasks)

    async def _be(self, mode: Mode) -> None:
        self._mode = mode
        if mode is Mode.GONE:
            await self._cut()
        for connection in self._connections:
            connection.commands_lost |= mode is Mode.SILENT
            connection.replies_lost |= mode in (Mode.SILENT, Mode.DEAF)
        (self._flowing.clear if mode is Mode.LATE else self._flowing.set)()

    async def _mend(self) -> None:
        for trap in self._traps:
            trap.released.set()
        self._traps.clear()
        await self._be(Mode.PASS)

    async def _cut(self) -> None:
        for connection in self._connections:
            connection.cut()

    async def _set(self, trap: Trap) -> None:
        for connection in self._connections:
            connection.recent_bytes = b""  # earlier bytes spring no trap
        self._traps.append(trap)

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            replies, upstream = await asyncio.open_unix_connection(str(self._upstream))
        except OSError:  # the server is down
            client.transport.abort()
            return
        connection = Connection(client, upstream)
        connection.commands_lost = self._mode is Mode.SILENT
        connection.replies_lost = self._mode in (Mode.SILENT, Mode.DEAF)
        self._connections.add(connection)
        try:
            await asyncio.gather(
                self._commands(connection, reader), self._replies(connection, replies)
            )
        except OSError:
            connection.cut()
        finally:
            client.transport.abort()
            upstream.transport.abort()
            self._connections.discard(connection)

    async def _commands(self, connection: Connection, reader: asyncio.StreamReader) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            await self._spring(connection, chunk)
            await self._flowing.wait()
            if self._mode is Mode.GONE:
                connection.cut()
                return
            if not connection.commands_lost:
                connection.upstream.write(chunk)
                await connection.upstream.drain()
        if not connection.commands_lost:
            connection.upstream.close()

    async def _replies(self, connection: Connection, reader: asyncio.StreamReader) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            if connection.next_reply_lost:
                connection.cut()
                return
            await self._flowing.wait()
            if not connection.replies_lost:
                connection.client.write(chunk)
                await connection.client.drain()
        if not connection.replies_lost:
            connection.client.close()

    async def _spring(self, connection: Connection, chunk: bytes) -> None:
        connection.recent_bytes += chunk
        for trap in self._traps:
            start = connection.recent_bytes.find(trap.after)
            if (
                trap.sprung.is_set()
                or start < 0
                or trap.match not in connection.recent_bytes[start + len(trap.after) :]
            ):
                continue
            connection.recent_bytes = b""
            match trap.then:
                case "silence":
                    await self._be(Mode.SILENT)
                case "cut":
                    await self._cut()
                    connection.commands_lost = True
                case "hold":
                    trap.sprung.set()
                    await trap.released.wait()
                case "lose reply":
                    connection.next_reply_lost = True
            trap.sprung.set()
            return
        connection.recent_bytes = connection.recent_bytes[-REMEMBERED_BYTES:]
