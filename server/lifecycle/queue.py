"""The queue: dispatches generation ids to workers. The claim in SQL decides who owns one."""

from collections.abc import Sequence
from typing import Any

import orjson
from arq.connections import ArqRedis
from arq.constants import job_key_prefix, retry_key_prefix
from arq.jobs import serialize_job
from arq.utils import timestamp_ms
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.client import Pipeline
from redis.exceptions import RedisError
from typing_extensions import override

from server.ids import made_at_ms
from server.logs import log
from server.stream.pools import REDIS_TIMEOUT_S, open_pool

GENERATE = "generate"
TITLE = "title"
JOB_KEPT_MS = 86_400_000
ARQ_PREFIX = "arq:"


class JobClient(ArqRedis):
    """A client whose pipelines put the installation's prefix before the keys of arq's jobs.

    arq gives those keys constant names, and touches them in pipelines only.
    """

    def __init__(self, redis: ArqRedis, key_prefix: str) -> None:
        super().__init__(
            pool_or_conn=redis.connection_pool,
            job_serializer=orjson.dumps,
            job_deserializer=orjson.loads,
        )
        self._key_prefix = key_prefix

    @override
    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """A pipeline for jobs."""
        pool, callbacks = self.connection_pool, self.response_callbacks
        return _JobPipeline(self._key_prefix, pool, callbacks, transaction, shard_hint)


class _JobPipeline(Pipeline):
    def __init__(self, key_prefix: str, *args: Any) -> None:
        super().__init__(*args)
        self._key_prefix = key_prefix

    def execute_command(self, *args: Any, **options: Any) -> Any:
        command, *rest = (
            f"{self._key_prefix}{word}"
            if isinstance(word, str) and word.startswith(ARQ_PREFIX)
            else word
            for word in args
        )
        return super().execute_command(command, *rest, **options)


def answers_queue(key_prefix: str) -> str:
    """The sorted set that holds the jobs of answers."""
    return f"{key_prefix}jobs:answers"


def chores_queue(key_prefix: str) -> str:
    """The sorted set of background jobs. They have slots of their own."""
    return f"{key_prefix}jobs:chores"


def control_channel(key_prefix: str, owner: str) -> bytes:
    """The channel on which a worker receives the ids of answers to stop."""
    return f"{key_prefix}worker:{owner}".encode()


def worker_key(key_prefix: str, owner: str) -> str:
    """The key of a running worker's report; `owner` may be `*`."""
    return f"{key_prefix}worker:{owner}"


async def worker_reports(redis: Any, key_prefix: str) -> list[dict[str, Any]]:
    """What the workers report about themselves. Raises RedisError."""
    keys = [key async for key in redis.scan_iter(match=worker_key(key_prefix, "*"), count=1000)]
    reports = await redis.mget(keys) if keys else []
    return [orjson.loads(report) for report in reports if report]


def open_redis(url: str, *, connections: int = 50) -> ArqRedis:
    """A pooled client, for arq and everything else; connects on first use.

    Close it with `aclose(close_connection_pool=True)`.

    The pool is a BlockingConnectionPool, because the other one connects under its lock: while Redis
    does not answer, callers would wait for each other's timeouts.
    """
    pool = open_pool(
        BlockingConnectionPool, url, max_connections=connections, timeout=REDIS_TIMEOUT_S
    )
    return ArqRedis(pool_or_conn=pool, job_serializer=orjson.dumps, job_deserializer=orjson.loads)


def _add(pipe: Pipeline, job: str, id: str, queue: str, job_id: str, score: int) -> None:
    """Adds a job in arq's format with this id; a job that already exists keeps its position.

    arq's `enqueue_job` would refuse an id whose data a dead worker left behind, for a day.
    """
    data = serialize_job(job, (id,), {}, None, timestamp_ms(), serializer=orjson.dumps)
    pipe.psetex(f"{job_key_prefix}{job_id}", JOB_KEPT_MS, data)
    pipe.delete(f"{retry_key_prefix}{job_id}")
    pipe.zadd(queue, {job_id: score}, nx=True)


async def try_queue(jobs: JobClient, key_prefix: str, job_id: str) -> None:
    """Uses each command of the queue and of jobs once, on keys of its own. Raises RedisError."""
    queue = f"{answers_queue(key_prefix)}:{job_id}"
    async with jobs.pipeline(transaction=True) as pipe:
        _add(pipe, GENERATE, job_id, queue, job_id, 0)
        await pipe.execute()
    await jobs.zmscore(queue, [job_id])
    await jobs.bzpopmin(queue, timeout=1)
    async with jobs.pipeline(transaction=True) as pipe:
        pipe.get(f"{job_key_prefix}{job_id}")
        pipe.incr(f"{retry_key_prefix}{job_id}")
        pipe.expire(f"{retry_key_prefix}{job_id}", 1)
        pipe.delete(f"{job_key_prefix}{job_id}", f"{retry_key_prefix}{job_id}")
        await pipe.execute()


class Queue:
    """Enqueues generations for workers. A generation has one job, which carries its id."""

    def __init__(self, redis: ArqRedis, key_prefix: str) -> None:
        self._redis, self._key_prefix = JobClient(redis, key_prefix), key_prefix
        self._name = answers_queue(key_prefix)

    async def put(self, generation_id: str) -> bool:
        """Enqueues a generation. False if Redis is unavailable: the sweep enqueues it later."""
        return await self._put(GENERATE, generation_id, self._name)

    async def pass_on(self, generation_id: str, owner: str) -> bool:
        """Sends a generation to other workers while its job still runs in `owner`.

        This is a separate job: when the running one ends, it deletes every job with its id.
        """
        job_id = f"{generation_id}.{owner}"
        return await self._put(GENERATE, generation_id, self._name, job_id)

    async def put_title(self, conversation_id: str) -> bool:
        """Enqueues the titling of a conversation. False without Redis: a chore retries."""
        return await self._put(TITLE, conversation_id, chores_queue(self._key_prefix))

    async def put_missing(self, generation_ids: Sequence[str]) -> int:
        """Enqueues those generations that have no job; returns how many. Raises RedisError.

        They get the positions that their lost jobs had.
        """
        if not generation_ids:
            return 0
        scores = await self._redis.zmscore(self._name, list(generation_ids))
        missing = [id for id, score in zip(generation_ids, scores, strict=True) if score is None]
        if missing:
            async with self._redis.pipeline(transaction=True) as pipe:
                for id in missing:
                    _add(pipe, GENERATE, id, self._name, id, made_at_ms(id))
                await pipe.execute()
        return len(missing)

    async def _put(self, job: str, id: str, queue: str, job_id: str = "") -> bool:
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                _add(pipe, job, id, queue, job_id or id, timestamp_ms())
                await pipe.execute()
        except RedisError as error:
            log.warning("enqueue_failed", job=job, id=id, reason=str(error))
            return False
        return True

    async def request_stops(self, owned: Sequence[tuple[str, str]]) -> None:
        """Notifies each owner of a cancellation; otherwise its next look finds it."""
        if not owned:
            return
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for owner, generation_id in owned:
                    pipe.publish(control_channel(self._key_prefix, owner), generation_id)
                await pipe.execute()
        except RedisError as error:
            log.warning("stop_not_published", generations=len(owned), reason=str(error))
