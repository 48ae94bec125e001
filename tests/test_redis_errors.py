"""Connections to Redis raise only RedisError, whatever the underlying error."""

from typing import Any

import pytest
from redis.exceptions import RedisError

from server.stream.pools import _translating

CALLS = ["connect", "send_packed_command", "read_response", "can_read_destructive", "disconnect"]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "error", [RuntimeError("closed"), ConnectionResetError("reset"), TimeoutError()], ids=repr
)
async def test_connection_errors_are_raised_as_redis_errors(call: str, error: Exception) -> None:
    async def fail(_self: Any) -> None:
        raise error

    kind: Any = type("Failing", (), dict.fromkeys(CALLS, fail))

    with pytest.raises(RedisError) as raised:
        await getattr(_translating(kind)(), call)()

    assert raised.value.__cause__ is error
    assert str(raised.value)
