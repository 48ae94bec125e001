"""Trying what this program needs of Redis, on keys and a channel that nothing else uses.

A server can answer and still be of no use: to a user without the rights, as a read-only replica, or
in a cluster.
"""

import asyncio
from typing import Any
from uuid import uuid4

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from server.lifecycle.queue import JobClient, try_queue, worker_key
from server.stream.events import EventType, make_event
from server.stream.log import (
    APPEND,
    CLOSE,
    OPEN,
    LogKeys,
    append_command,
    call_script,
    close_command,
    log_keys,
    open_command,
)

CHECK_TIMEOUT_S = 2.0
KEPT_MS = 10_000


class RedisRefuses(Exception):
    """Redis answers, but does not do what the program needs. The message is one sentence.

    `lasting`: it is the configuration, so that waiting does not help.
    """

    def __init__(self, message: str, *, lasting: bool) -> None:
        super().__init__(message)
        self.lasting = lasting


async def check_redis(redis: Any, key_prefix: str) -> None:
    """Uses each kind of command, script and channel once; needs two connections.

    Raises RedisRefuses, or RedisError when Redis is unavailable.
    """
    name = f"check-{uuid4().hex}"
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await try_queue(JobClient(redis, key_prefix), key_prefix, name)
            await _try_log(redis, log_keys(key_prefix, name))
            report = worker_key(key_prefix, name)
            await redis.set(report, b"", px=KEPT_MS)
            await redis.mget(report)
            await redis.delete(report)
    except TimeoutError:
        raise RedisError(f"no reply within {CHECK_TIMEOUT_S:g} s") from None
    except RedisError as error:
        # redis-py reports a refusal while connecting as the cause of a connection error.
        for each in (error, error.__cause__):
            if isinstance(each, (AuthenticationError, AuthorizationError, ResponseError)):
                raise _refusal(each) from each
        raise


async def _try_log(redis: Any, keys: LogKeys) -> None:
    seconds, microseconds = await redis.time()
    until_us = seconds * 1_000_000 + microseconds + KEPT_MS * 1000
    event, end = make_event(2, EventType.STARTED, {}), make_event(3, EventType.CANCELLED, {})
    subscription = redis.pubsub()
    try:
        await subscription.subscribe(keys.channel)
        await subscription.get_message(timeout=CHECK_TIMEOUT_S)  # raises a refusal
        for script, command in (
            (
                OPEN,
                open_command(
                    keys, 1, deadline_us=until_us, ttl_ms=KEPT_MS, first=True, entries=True
                ),
            ),
            (APPEND, append_command(keys, 1, [event], ttl_ms=KEPT_MS, whole=True)),
            (CLOSE, close_command(keys, end, retention_ms=1)),
        ):
            [reply] = await call_script(redis, script, [command])
            if isinstance(reply, RedisError):
                raise reply
        await redis.xrange(keys.events, count=1)
    finally:
        await subscription.aclose()


def _refusal(error: RedisError) -> RedisRefuses:
    if isinstance(error, (AskError, ClusterDownError)) or str(error).startswith("CROSSSLOT"):
        sentence = "The server is part of a cluster, which is not supported."
        return RedisRefuses(sentence, lasting=True)
    match error:
        case ReadOnlyError():
            return RedisRefuses("The server is a read-only replica.", lasting=False)
        case NoPermissionError() | AuthenticationError() | AuthorizationError():
            return RedisRefuses(_sentence(error), lasting=True)
    return RedisRefuses(_sentence(error), lasting=False)


def _sentence(error: RedisError) -> str:
    """The server's own words, without the position in a script."""
    words = str(error).partition(" script: ")[0].rstrip(". ")
    return f"{words[:1].upper()}{words[1:]}."


async def redis_refusal(redis: Any, key_prefix: str) -> str:
    """Why Redis is of no use although it answers, or an empty string.

    One that is unavailable or full is no reason: messages are accepted without it.
    """
    try:
        await check_redis(redis, key_prefix)
    except RedisRefuses as error:
        return "" if isinstance(error.__cause__, OutOfMemoryError) else str(error)
    except RedisError:
        pass
    return ""
