"""The queue: sending generations to whoever has a slot. Ids only; the claim in SQL is what makes a job somebody's."""

import orjson
from arq.connections import ArqRedis
from redis.asyncio import BlockingConnectionPool
from redis.exceptions import RedisError

from server.logs import log
from server.stream.pools import REDIS_TIMEOUT_S, open_pool

GENERATE = "generate"
TITLE = "title"


def answers_queue(key_prefix: str) -> str:
    """The sorted set that holds the jobs of answers."""
    return f"{key_prefix}queue:answers"


def chores_queue(key_prefix: str) -> str:
    """The sorted set that holds the jobs nobody waits for: they have slots of their own, and never take one of an answer."""
    return f"{key_prefix}queue:chores"


def control_channel(key_prefix: str, owner: str) -> bytes:
    """The channel on which a worker is told which of its answers to stop."""
    return f"{key_prefix}worker:{owner}".encode()


def worker_key(key_prefix: str, owner: str) -> str:
    """The key under which a living worker tells of itself; `owner` may be `*`."""
    return f"{key_prefix}worker:{owner}"


def open_redis(url: str, *, connections: int = 50) -> ArqRedis:
    """A pooled client, arq's and everybody's; connects when first used. Close it with `aclose(close_connection_pool=True)`.

    The pool that waits is taken not only because it waits while every connection is in use: the other one connects under its lock, so that
    callers of a Redis which does not answer would wait for each other's time-outs, one after the other.
    """
    pool = open_pool(
        BlockingConnectionPool, url, max_connections=connections, timeout=REDIS_TIMEOUT_S
    )
    return ArqRedis(pool_or_conn=pool, job_serializer=orjson.dumps, job_deserializer=orjson.loads)


class Queue:
    """Where generations wait for a worker."""

    def __init__(self, redis: ArqRedis, key_prefix: str) -> None:
        self._redis, self._key_prefix = redis, key_prefix
        self._name = answers_queue(key_prefix)

    async def put(self, generation_id: str) -> bool:
        """Sends a generation to the workers. False when Redis is away: the sweep will send it once it is back."""
        return await self._put(GENERATE, generation_id, self._name)

    async def put_title(self, conversation_id: str) -> bool:
        """Has a conversation named. False when Redis is away: the chores of the workers will find it."""
        return await self._put(TITLE, conversation_id, chores_queue(self._key_prefix))

    async def is_empty(self) -> bool:
        """Whether no job waits. Raises RedisError."""
        return not await self._redis.zcard(self._name)

    async def _put(self, job: str, id: str, queue: str) -> bool:
        try:
            await self._redis.enqueue_job(job, id, _queue_name=queue)
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("not_enqueued", job=job, id=id, reason=str(error))
            return False
        return True

    async def tell_to_stop(self, owner: str, generation_id: str) -> None:
        """Tells the owner that a generation was cancelled. It would find out by its next beat."""
        try:
            await self._redis.publish(control_channel(self._key_prefix, owner), generation_id)
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("owner_not_told", generation=generation_id, reason=str(error))
