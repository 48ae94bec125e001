"""Waiting for what a process needs before it starts: the schema, and Redis."""

import asyncio
import signal
from time import monotonic

from redis.exceptions import RedisError

from server.errors import StartError
from server.history.database import open_database
from server.history.schema import WAIT_S, wait_for_schema
from server.lifecycle.queue import open_redis
from server.lifecycle.redis_check import RedisRefuses, check_redis
from server.logs import log
from server.settings import Settings


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set, in the running loop."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def wait_for_services(
    settings: Settings, stop: asyncio.Event, *, redis_too: bool = True
) -> bool:
    """True once the database has the schema and Redis answers; False when `stop` is set first.

    Raises StartError after a minute.
    """
    waiting = asyncio.create_task(_wait(settings, redis_too=redis_too))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            waiting.result()
    finally:
        for task in (waiting, stopping):
            task.cancel()
        await asyncio.gather(waiting, stopping, return_exceptions=True)
    return not stop.is_set()


async def _wait(settings: Settings, *, redis_too: bool) -> None:
    async with open_database(settings.database_url) as database:
        await wait_for_schema(database)
    if redis_too:
        await wait_for_redis(settings)


async def wait_for_redis(settings: Settings, wait_s: float = WAIT_S) -> None:
    """Waits until Redis does what is needed; raises StartError after `wait_s`, or if it never will."""
    redis, deadline = open_redis(settings.redis_url, connections=2), monotonic() + wait_s
    logged = ""
    try:
        while True:
            try:
                await check_redis(redis, settings.redis.key_prefix)
            except (RedisError, RedisRefuses) as error:
                if isinstance(error, RedisRefuses) and error.lasting:
                    raise StartError(f"Redis cannot be used: {error}") from error
                if monotonic() > deadline:
                    reason = str(error).rstrip(".")
                    raise StartError(
                        f"Redis was not ready after {wait_s:g} s: {reason}."
                    ) from error
                if str(error) != logged:
                    log.info("waiting_for_redis", reason=(logged := str(error)))
                await asyncio.sleep(0.02)
            else:
                return
    finally:
        await redis.aclose(close_connection_pool=True)
