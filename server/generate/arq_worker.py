"""arq, for dispatch only: its queue and its jobs, without its polling loop.

arq's own loop polls twice a second, keeps running jobs in the queue, and ends the process on a
Redis outage. Here a free slot waits in BZPOPMIN on the same queue, and the job then runs through
arq's `run_job`. A job that is lost with its worker is harmless: the generation is in SQL, and the
sweep enqueues it again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

import orjson
from arq.typing import WorkerCoroutine
from arq.worker import Function, Worker, func
from redis.exceptions import RedisError

from server.faults import reach
from server.lifecycle.queue import JobClient
from server.logs import log

BLOCK_S = 1.0  # less than the client's socket time-out
RETRY_S = 0.2


class QueueWorker(Worker):
    """Takes jobs of one name from one queue while it has a free slot."""

    def __init__(
        self,
        jobs: JobClient,
        queue: str,
        job: str,
        run: Callable[[str], Awaitable[None]],
        *,
        slots: int,
    ) -> None:
        super().__init__(
            functions=[_function(job, run)],
            redis_pool=jobs,
            queue_name=queue,
            max_jobs=slots,
            keep_result=0,
            max_tries=1,
            retry_jobs=False,
            handle_signals=False,
            job_serializer=orjson.dumps,
            job_deserializer=orjson.loads,
        )
        self._slots = asyncio.Semaphore(slots)
        self._taking = True

    async def main(self) -> None:
        """Takes jobs until `stop_taking`; then returns, while jobs that were taken still run."""
        while self._taking:
            await self._slots.acquire()
            job = await self._pop() if self._taking else None
            if job is None:
                self._slots.release()
                continue
            job_id, score = job
            if not self._taking:  # stopped while waiting; the job's data still exists
                await self._put_back(job_id, score)
                self._slots.release()
                continue
            task = self.loop.create_task(self._run(job_id, score))
            self.tasks[job_id] = task
            task.add_done_callback(partial(self._done, job_id))

    def stop_taking(self) -> None:
        """Stops taking jobs, once the current wait for one ends; ends a wait for a free slot."""
        self._taking = False
        self._slots.release()

    async def end(self) -> None:
        """Cancels the jobs that still run; for jobs that can be run again."""
        running = list(self.tasks.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _pop(self) -> tuple[str, int] | None:
        try:
            popped = await self.pool.bzpopmin(self.queue_name, timeout=BLOCK_S)
        except RedisError as error:
            log.warning("queue_unavailable", reason=str(error))
            await asyncio.sleep(RETRY_S)
            return None
        except Exception:  # it would end the process and all its answers
            log.exception("queue_failed")
            await asyncio.sleep(RETRY_S)
            return None
        if not popped:
            return None
        reach("after pop")
        return popped[1].decode(), int(popped[2])

    async def _put_back(self, job_id: str, score: int) -> None:
        try:
            await self.pool.zadd(self.queue_name, {job_id: score}, nx=True)
        except RedisError as error:
            log.warning("job_not_requeued", job=job_id, reason=str(error))  # the sweep finds it

    async def _run(self, job_id: str, score: int) -> None:
        try:
            await self.run_job(job_id, score)
        except RedisError as error:
            log.warning(
                "job_not_finished", job=job_id, reason=str(error)
            )  # the sweep repairs its generation

    def _done(self, job_id: str, _task: asyncio.Task[None]) -> None:
        self.tasks.pop(job_id, None)
        self._slots.release()


def _function(job: str, run: Callable[[str], Awaitable[None]]) -> Function:
    async def run_with(_ctx: dict[Any, Any], id: str) -> None:
        await run(id)

    return func(
        cast("WorkerCoroutine", run_with),
        name=job,
        timeout=365 * 86_400,
        keep_result=0,
        max_tries=1,
    )
