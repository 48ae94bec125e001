"""Connections to Redis raise only RedisError, whatever the underlying error."""

from time import monotonic
from typing import Any

import pytest
from redis.asyncio.connection import UnixDomainSocketConnection
from redis.exceptions import RedisError

from server.redis_url import parse_redis_url
from server.stream.pools import Primary, PrimaryConnection

CALLS = ["connect", "send_packed_command", "read_response", "can_read_destructive", "disconnect"]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "error", [RuntimeError("closed"), ConnectionResetError("reset"), TimeoutError()], ids=repr
)
async def test_connection_errors_are_raised_as_redis_errors(call: str, error: Exception) -> None:
    async def fail(_self: Any) -> None:
        raise error

    failing = type("Failing", (UnixDomainSocketConnection,), dict.fromkeys(CALLS, fail))
    kind: Any = type("Connection", (PrimaryConnection, failing), {})
    connection = kind(path="", primary=Primary(parse_redis_url("unix:///nowhere")))
    connection._taken_at = monotonic()

    with pytest.raises(RedisError) as raised:
        await getattr(connection, call)()

    assert raised.value.__cause__ is error
    assert str(raised.value)
