"""One connection to Redis that never reconnects by itself.

The log's fence must know when a connection is new, and streaming reads many replies per wake-up; a
pooled client offers neither. redis-py connects (address, TLS, authentication, database); reading
and writing happen here.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Self

import hiredis
from redis.asyncio import ConnectionPool
from redis.exceptions import RedisError

from server.stream.pools import REDIS_TIMEOUT_S, PrimaryConnection, open_pool

READ_BYTES = 1 << 18

Command = tuple[bytes | str | int | float, ...]


class LinkLost(Exception):
    """The connection is lost or timed out. Commands that were sent may have been executed."""


class Link:
    """A connection for either commands (`execute`) or subscriptions (`send` and `receive`)."""

    def __init__(self, connection: PrimaryConnection) -> None:
        self._connection = connection
        self._parser = hiredis.Reader(notEnoughData=Ellipsis)

    @classmethod
    async def connect(cls, url: str) -> Self:
        """A new connection to `url`; raises LinkLost."""
        connection: PrimaryConnection = open_pool(ConnectionPool, url).make_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.connect()
        except RedisError as error:
            raise LinkLost(str(error)) from error
        return cls(connection)

    @property
    def demoted(self) -> bool:
        """Whether the server may have become a replica since this connection was made."""
        return self._connection.demoted

    async def execute(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to `commands`, in order, sent in one write.

        An error reply is a hiredis.ReplyError in the list.
        """
        self.send(commands)
        replies: list[Any] = []
        while len(replies) < len(commands):
            try:
                async with asyncio.timeout(REDIS_TIMEOUT_S):
                    replies += await self.receive()
            except TimeoutError as error:
                raise LinkLost(f"no reply within {REDIS_TIMEOUT_S} s") from error
        return replies

    def send(self, commands: Sequence[Command]) -> None:
        """Writes `commands` out without waiting for anything; raises LinkLost."""
        writer = self._connection._writer  # noqa: SLF001  redis-py has no public API for it; its version is pinned
        if writer is None or writer.is_closing():
            raise LinkLost("the connection is closed")
        writer.write(b"".join([hiredis.pack_command(command) for command in commands]))  # type: ignore[arg-type]  # it takes any length

    async def receive(self) -> list[Any]:
        """All replies or messages that have arrived, at least one; raises LinkLost."""
        arrived: list[Any] = []
        while not arrived:
            try:
                chunk = await self._connection._reader.read(READ_BYTES)  # type: ignore[union-attr]  # noqa: SLF001
            except (OSError, AttributeError) as error:
                raise LinkLost(str(error)) from error
            if not chunk:
                raise LinkLost("Redis closed the connection")
            try:
                self._parser.feed(chunk)
                while (reply := self._parser.gets()) is not Ellipsis:
                    arrived.append(reply)
            except hiredis.ProtocolError as error:
                raise LinkLost(str(error)) from error
        return arrived

    async def close(self) -> None:
        """Closes the connection without waiting for the other side."""
        await self._connection.disconnect(nowait=True)
