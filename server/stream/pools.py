"""Pools of connections to Redis that raise only RedisError, and that reach the primary."""

from dataclasses import dataclass
from functools import cache
from time import monotonic
from typing import Any, TypeVar

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError

from server.redis_url import RedisUrl, parse_redis_url

Pool = TypeVar("Pool", bound=ConnectionPool)

REDIS_TIMEOUT_S = 2.0

IDLE_MAX_S = 30.0
"""How long a connection may be idle before a new one takes its place: load balancers and firewalls
drop idle connections, often without telling either end."""

CONNECTION_ERRORS = (RuntimeError, OSError)
"""Errors that redis-py does not translate: uvloop raises RuntimeError for a write to a connection
that was reset, and in some calls timeouts and socket errors escape."""


@dataclass(eq=False)
class Primary:
    """The server that all connections of this process to one address belong to."""

    address: RedisUrl
    demotions: int = 0
    """How often the server turned out to be read-only: connections from before are replaced."""

    async def find(self) -> tuple[str, int]:
        """The primary's address, from the first Sentinel that knows it. Raises RedisError."""
        reasons = []
        for host, port in self.address.sentinels:
            sentinel: Any = Redis.from_pool(_sentinel_pool(self.address, host, port))
            try:
                found = await sentinel.sentinel_get_master_addr_by_name(self.address.service)
            except (RedisError, *CONNECTION_ERRORS) as error:
                reasons.append(f"{host}:{port}: {_reason(error)}")
            else:
                if found:
                    return str(found[0]), int(found[1])
                reasons.append(f"{host}:{port} does not know {self.address.service!r}")
            finally:
                await sentinel.aclose()
        raise RedisConnectionError(f"no Sentinel knows the primary: {'; '.join(reasons)}")


class PrimaryConnection(AbstractConnection):
    """A connection that is replaced when it may be dead, or lead to a server that was demoted.

    It raises only RedisError, from every method that a client calls.
    """

    def __init__(self, *args: Any, primary: Primary, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._primary, self._demotions, self._taken_at = primary, 0, 0.0

    @property
    def demoted(self) -> bool:
        """Whether the server may have become a replica since this connection was made."""
        return self._demotions != self._primary.demotions

    async def connect(self, *args: Any, **kwargs: Any) -> None:
        if self.is_connected:
            return
        try:
            if self._primary.address.sentinels:
                self.host, self.port = await self._primary.find()
            self._demotions, self._taken_at = self._primary.demotions, monotonic()
            await super().connect(*args, **kwargs)  # type: ignore[no-untyped-call]
        except CONNECTION_ERRORS as error:
            raise RedisConnectionError(_reason(error)) from error

    async def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
        try:
            await super().send_packed_command(*args, **kwargs)
        except CONNECTION_ERRORS as error:
            raise RedisConnectionError(_reason(error)) from error

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().read_response(*args, **kwargs)
        except ReadOnlyError:  # after a failover, the address leads to another server
            self._primary.demotions += 1
            raise
        except CONNECTION_ERRORS as error:
            raise RedisConnectionError(_reason(error)) from error

    async def can_read_destructive(self) -> bool:
        """Called by a pool before it gives the connection to a client.

        A pool replaces a connection that has something to read.
        """
        idle_s, self._taken_at = monotonic() - self._taken_at, monotonic()
        if self.demoted or idle_s > IDLE_MAX_S:
            return True
        try:
            return bool(await super().can_read_destructive())  # type: ignore[no-untyped-call]
        except CONNECTION_ERRORS as error:
            raise RedisConnectionError(_reason(error)) from error

    async def disconnect(self, *args: Any, **kwargs: Any) -> None:
        try:
            await super().disconnect(*args, **kwargs)
        except CONNECTION_ERRORS as error:
            raise RedisConnectionError(_reason(error)) from error


class _Tcp(PrimaryConnection, Connection):
    pass


class _Tls(PrimaryConnection, SSLConnection):
    pass


class _Unix(PrimaryConnection, UnixDomainSocketConnection):
    pass


def open_pool(kind: type[Pool], url: str, **options: Any) -> Pool:
    """A pool for `url` with a timeout on every wait, whose connections raise only RedisError.

    Opens no connection yet.
    """
    primary = _primary_of(url)
    address = primary.address
    kept = {
        name: value for name, value in address.options.items() if not name.startswith("sentinel_")
    }
    if "path" in kept:
        connection_class: type[PrimaryConnection] = _Unix
    else:
        connection_class = _Tls if address.secure else _Tcp
    return kind(
        connection_class=connection_class,
        primary=primary,
        **_TIMEOUTS | kept | options,
    )


@cache
def _primary_of(url: str) -> Primary:
    return Primary(parse_redis_url(url))


_TIMEOUTS = {"socket_timeout": REDIS_TIMEOUT_S, "socket_connect_timeout": REDIS_TIMEOUT_S}


def _sentinel_pool(address: RedisUrl, host: str, port: int) -> ConnectionPool:
    """A pool for one Sentinel, which has credentials of its own but the same certificates."""
    options = {name: value for name, value in address.options.items() if name.startswith("ssl_")}
    for name in ("username", "password"):
        if value := address.options.get(f"sentinel_{name}"):
            options[name] = value
    kind = SSLConnection if address.secure else Connection
    return ConnectionPool(
        connection_class=kind,
        host=host,
        port=port,
        decode_responses=True,
        **_TIMEOUTS | options,
    )


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
