"""The queue: every generation has one job; lost jobs are enqueued again, exactly once."""

import asyncio
from typing import Any

from arq.connections import ArqRedis

from server.generate.arq_worker import QueueWorker
from server.ids import Prefix, new_id
from server.lifecycle.queue import GENERATE, JobClient, Queue, answers_queue
from tests.client import Client
from tests.system import System
from tests.waiting import condition

PREFIX = "queue-test:"
NAME = answers_queue(PREFIX)


async def waiting(redis: ArqRedis) -> list[str]:
    return [id.decode() for id in await redis.zrange(NAME, 0, -1)]


async def run(redis: ArqRedis, count: int) -> list[str]:
    """The ids that a worker takes from the queue, until it took `count`."""
    taken: list[str] = []

    async def take(id: str) -> None:
        taken.append(id)

    worker = QueueWorker(JobClient(redis, PREFIX), NAME, GENERATE, take, slots=1)
    working = asyncio.create_task(worker.main())
    await condition(lambda: len(taken) >= count)
    worker.stop_taking()
    await working
    return taken


async def test_a_lost_job_is_enqueued_again_before_all_others(redis: ArqRedis) -> None:
    queue, ids = Queue(redis, PREFIX), [new_id(Prefix.GENERATION) for _ in range(3)]
    await asyncio.sleep(0.002)
    for id in ids:
        await queue.put(id)
    await redis.zrem(NAME, ids[0])  # as if popped by a worker that died: its data remain
    await redis.incr(f"{PREFIX}arq:retry:{ids[0]}")

    assert await queue.put_missing(ids) == 1

    assert (await waiting(redis))[0] == ids[0]
    assert sorted(await run(redis, 3)) == sorted(ids)


async def test_a_worker_whose_slots_are_all_taken_stops_taking(redis: ArqRedis) -> None:
    queue, begun, ending = Queue(redis, PREFIX), asyncio.Event(), asyncio.Event()
    first, second = new_id(Prefix.GENERATION), new_id(Prefix.GENERATION)

    async def take(_id: str) -> None:
        begun.set()
        await ending.wait()

    worker = QueueWorker(JobClient(redis, PREFIX), NAME, GENERATE, take, slots=1)
    working = asyncio.create_task(worker.main())
    await queue.put(first)
    await begun.wait()
    await queue.put(second)

    worker.stop_taking()
    await asyncio.wait_for(working, 20)

    assert second in await waiting(redis)
    ending.set()
    await worker.end()


async def test_a_queued_job_is_not_enqueued_twice(redis: ArqRedis) -> None:
    queue, ids = Queue(redis, PREFIX), [new_id(Prefix.GENERATION) for _ in range(3)]
    for id in ids:
        await queue.put(id)
    before = await redis.zrange(NAME, 0, -1, withscores=True)

    for _ in range(3):
        await queue.put(ids[0])
        assert await queue.put_missing(ids) == 0

    assert await redis.zrange(NAME, 0, -1, withscores=True) == before


async def test_a_finished_job_leaves_no_keys(redis: ArqRedis) -> None:
    queue, id = Queue(redis, PREFIX), new_id(Prefix.GENERATION)
    await queue.put(id)

    await run(redis, 1)

    await wait_for_value(lambda: redis.keys("*"), [])


async def test_a_job_passed_on_while_running_is_kept(redis: ArqRedis) -> None:
    queue, id = Queue(redis, PREFIX), new_id(Prefix.GENERATION)

    async def take(id: str) -> None:
        await queue.pass_on(id, "wrk_draining")
        worker.stop_taking()

    worker = QueueWorker(JobClient(redis, PREFIX), NAME, GENERATE, take, slots=1)
    await queue.put(id)
    await worker.main()
    await condition(lambda: not worker.tasks)

    assert await run(redis, 1) == [id]


async def test_a_job_popped_by_a_stopping_worker_is_returned(redis: ArqRedis) -> None:
    queue, id = Queue(redis, PREFIX), new_id(Prefix.GENERATION)

    async def take(id: str) -> None:
        raise AssertionError("a stopping worker must not take jobs")

    worker = QueueWorker(JobClient(redis, PREFIX), NAME, GENERATE, take, slots=1)
    working = asyncio.create_task(worker.main())
    await asyncio.sleep(0)  # let it start waiting for a job
    worker.stop_taking()
    await queue.put(id)
    await working

    assert await waiting(redis) == [id]


async def wait_for_value(read: Any, expected: Any) -> None:
    async with asyncio.timeout(10):
        while await read() != expected:
            await asyncio.sleep(0.01)


async def test_a_lost_job_is_enqueued_again_while_the_queue_is_full(tmp_path_factory: Any) -> None:
    system = System(tmp_path_factory.mktemp("overload"), {"worker": {"concurrency": 1}})
    try:
        await asyncio.to_thread(system.start)
        async with Client(system.web.url, await asyncio.to_thread(system.new_key)) as client:
            busy = await client.send("/demo tokens=5 stall_after=1")
            await condition(lambda: system.row(busy["generation_id"]).owner)
            sent = [await client.send(f"/demo tokens=1\n{n}") for n in range(4)]
            name, ids = "tidemark:jobs:answers", [each["generation_id"] for each in sent]
            before = system.redis().zcard(name)
            [lost] = system.redis().zrange(name, 0, 0)
            assert system.redis().zrem(name, lost) == 1

            await condition(lambda: system.redis().zcard(name) == before)

            await client.cancel(busy["generation_id"])
            for id in ids:
                await client.read(id)
    finally:
        system.close()
