"""Pools of connections to Redis that raise only RedisError."""

from functools import cache
from typing import Any, TypeVar

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError

Pool = TypeVar("Pool", bound=ConnectionPool)

REDIS_TIMEOUT_S = 2.0

CONNECTION_ERRORS = (RuntimeError, OSError)
"""Errors that redis-py does not translate: uvloop raises RuntimeError for a write to a connection
that was reset, and in some calls timeouts and socket errors escape."""


def open_pool(kind: type[Pool], url: str, **options: Any) -> Pool:
    """A pool for `url` with a timeout on every wait, whose connections raise only RedisError.

    Opens no connection yet.
    """
    pool = kind.from_url(
        url, socket_timeout=REDIS_TIMEOUT_S, socket_connect_timeout=REDIS_TIMEOUT_S, **options
    )
    pool.connection_class = _translating(pool.connection_class)  # type: ignore[arg-type]  # classes can be hashed
    return pool


@cache
def _translating(kind: type[AbstractConnection]) -> type[AbstractConnection]:
    class Translating(kind):  # type: ignore[misc, valid-type]  # TCP, TLS or Unix, depending on the URL
        """Translates the errors of every method that a client calls on a connection."""

        async def connect(self, *args: Any, **kwargs: Any) -> None:
            try:
                await super().connect(*args, **kwargs)
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
            except CONNECTION_ERRORS as error:
                raise RedisConnectionError(_reason(error)) from error

        async def can_read_destructive(self) -> bool:
            try:
                return bool(await super().can_read_destructive())
            except CONNECTION_ERRORS as error:
                raise RedisConnectionError(_reason(error)) from error

        async def disconnect(self, *args: Any, **kwargs: Any) -> None:
            try:
                await super().disconnect(*args, **kwargs)
            except CONNECTION_ERRORS as error:
                raise RedisConnectionError(_reason(error)) from error

    return Translating


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
