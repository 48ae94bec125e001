"""Waiting for what a process needs before it starts: the schema, and Redis."""

import asyncio
from time import monotonic

from redis.exceptions import RedisError

from server.errors import StartError
from server.history.database import open_database
from server.history.schema import WAIT_S, wait_for_schema
from server.lifecycle.queue import open_redis
from server.settings import Settings


async def wait_for_services(settings: Settings, *, redis_too: bool = True) -> None:
    """Returns once the database has the schema and Redis answers; raises StartError after a minute."""
    async with open_database(settings.database_url) as database:
        await wait_for_schema(database)
    if redis_too:
        await wait_for_redis(settings.redis_url)


async def wait_for_redis(url: str, wait_s: float = WAIT_S) -> None:
    """Returns once Redis answers; raises StartError after `wait_s`."""
    redis, deadline = open_redis(url, connections=1), monotonic() + wait_s
    try:
        while True:
            try:
                await redis.ping()
            except (RedisError, OSError, TimeoutError) as error:
                if monotonic() > deadline:
                    raise StartError(f"Redis was not ready after {wait_s:g} s: {error}.") from error
                await asyncio.sleep(0.02)
            else:
                return
    finally:
        await redis.aclose(close_connection_pool=True)
