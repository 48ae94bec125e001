"""Connections to Redis raise nothing but RedisError, whatever lies below."""

from typing import Any

import pytest
from redis.exceptions import RedisError

from server.stream.pools import _translating

CALLS = ["connect", "send_packed_command", "read_response", "can_read_destructive", "disconnect"]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "error", [RuntimeError("closed"), ConnectionResetError("reset"), TimeoutError()], ids=repr
)
async def test_an_error_of_the_connection_is_a_redis_error(call: str, error: Exception) -> None:
    async def fail(_self: Any) -> None:
        raise error

    kind: Any = type("Failing", (), dict.fromkeys(CALLS, fail))

    with pytest.raises(RedisError) as raised:
        await getattr(_translating(kind)(), call)()

    assert raised.value.__cause__ is error
    assert str(raised.value)
