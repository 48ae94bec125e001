"""Pools of connections to Redis."""

from functools import cache
from typing import Any, TypeVar

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError

Pool = TypeVar("Pool", bound=ConnectionPool)

REDIS_TIMEOUT_S = 2.0


def open_pool(kind: type[Pool], url: str, **options: Any) -> Pool:
    """A pool for `url` in which every wait has an end, and every loss of a connection is a RedisError. Opens no connection yet."""
    pool = kind.from_url(
        url, socket_timeout=REDIS_TIMEOUT_S, socket_connect_timeout=REDIS_TIMEOUT_S, **options
    )
    pool.connection_class = _telling(pool.connection_class)  # type: ignore[arg-type]  # classes can be hashed
    return pool


@cache
def _telling(kind: type[AbstractConnection]) -> type[AbstractConnection]:
    class Telling(kind):  # type: ignore[misc, valid-type]  # TCP, TLS or Unix, as the address says
        """Whoever writes to a connection that was reset gets a RuntimeError from uvloop, which redis-py passes on."""

        async def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
            try:
                await super().send_packed_command(*args, **kwargs)
            except RuntimeError as error:
                raise RedisConnectionError(str(error)) from error

    return Telling
