"""Memory: everything an answer held is freed when it ends, even without garbage collection."""

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from server.generate.answering import Answering
from server.generate.owned_log import OwnedLog
from server.providers.base import ModelRequest
from server.stream.events import Event
from server.worker import build_worker
from tests.client import Client
from tests.system import Process, System
from tests.waiting import condition

ANSWERS = 10
HELD_BY_AN_ANSWER = (Answering, OwnedLog, Event, ModelRequest)

MIB = 1 << 20
WARM_ANSWERS, ANSWERS_IN_ALL, AT_ONCE = 200, 2_000, 32
GROWTH_MAX_BYTES = 20 * MIB


@contextmanager
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def live() -> Counter[str]:
    """The number of live objects of each type that an answer consists of."""
    return Counter(
        type(held).__name__ for held in gc.get_objects() if type(held) in HELD_BY_AN_ANSWER
    )


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """A caller of an installation whose worker runs in this process."""
    system = System(tmp_path)
    try:
        await asyncio.to_thread(lambda: system.start(workers=0))
        key, stop = await asyncio.to_thread(system.new_key), asyncio.Event()
        async with build_worker(system.settings) as worker, Client(system.web.url, key) as client:
            working = asyncio.create_task(worker.run(stop))
            yield client
            stop.set()
            await working
    finally:
        system.close()


async def ask(client: Client, question: str, status: str) -> None:
    sent = await client.send(question)
    if status == "cancelled":
        await client.read(sent["generation_id"], stop_after=5)
        await client.cancel(sent["generation_id"])
    await client.read(sent["generation_id"])
    assert (await client.snapshot(sent["generation_id"]))["status"] == status


@pytest.mark.parametrize(
    ("question", "status"),
    [
        ("/demo tokens=300 rate=2000\nto its end", "completed"),
        ("/demo tokens=300 rate=2000 fail_after=200\nto its failure", "failed"),
        ("/demo tokens=300 rate=2000 stall_after=200\nuntil it is stopped", "cancelled"),
    ],
)
async def test_an_ended_answer_leaves_no_objects_in_its_worker(
    client: Client, question: str, status: str
) -> None:
    await ask(client, question, status)
    with no_collector():
        before = live()

        for _ in range(ANSWERS):
            await ask(client, question, status)

        await condition(lambda: live() <= before, 10)


def resident_bytes(process: Process) -> int:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_memory_does_not_grow_with_the_number_of_answers(
    new_system: Callable[..., System],
) -> None:
    system = await asyncio.to_thread(lambda: new_system().start())
    slots = asyncio.Semaphore(AT_ONCE)
    async with Client(system.web.url, await asyncio.to_thread(system.new_key)) as client:

        async def answer(n: int) -> None:
            async with slots:
                sent = await client.send(f"/demo tokens=600 rate=600\n{n}")
                await client.read(sent["generation_id"])

        async def answers(first: int, last: int) -> dict[str, int]:
            await asyncio.gather(*[answer(n) for n in range(first, last)])
            return {each.name: resident_bytes(each) for each in (system.worker, system.web)}

        before = await answers(0, WARM_ANSWERS)
        after = await answers(WARM_ANSWERS, ANSWERS_IN_ALL)

    grown = {name: after[name] - before[name] for name in before}
    assert all(bytes <= GROWTH_MAX_BYTES for bytes in grown.values()), (before, after)
