"""A worker's signs of life: who is taken for dead, and who is not."""

import asyncio
from collections.abc import Callable

import pytest
from sqlalchemy import delete, select
from sqlmodel import Session, col

from server.generate.heartbeat import RECOVERY_S, Watch
from server.history.database import open_database
from server.history.tables import Generation, Worker
from server.history.workers import EARLIER_VERSION, Life, lives, register
from server.lifecycle.settling import STALE_AFTER_S
from tests.client import Client
from tests.databases import Sql, both_databases
from tests.deaths import DYING
from tests.readers import check_all, reading, some_tokens, types_of
from tests.system import System
from tests.waiting import condition

LEASE_S, BEAT_S = 2.0, 0.5


def looks(watch: Watch, beats: list[int | None], start: float = 0.0) -> list[bool]:
    """Whether a worker with these beats, one each half second, is found dead at each look."""
    return [
        bool(
            watch.look(
                [Life("other", beat, LEASE_S)] if beat is not None else [], start + n * BEAT_S
            )
        )
        for n, beat in enumerate(beats)
    ]


@pytest.mark.quick
def test_a_worker_is_dead_once_its_beat_has_not_risen_for_its_lease() -> None:
    assert looks(Watch(LEASE_S), [1, 1, 1, 1, 1]) == [False, False, False, False, True]


@pytest.mark.quick
def test_a_worker_whose_beat_rises_lives() -> None:
    assert not any(looks(Watch(LEASE_S), [1, 1, 1, 2, 2, 2, 3, 3, 3, 4]))


@pytest.mark.quick
def test_a_worker_has_a_new_lease_when_it_registers_again() -> None:
    assert not any(looks(Watch(LEASE_S), [1, 1, 1, None, 1, 1, 1, 1]))


@pytest.mark.quick
def test_after_an_outage_of_the_database_nobody_is_dead_for_a_while() -> None:
    watch = Watch(LEASE_S)
    looks(watch, [1, 1])
    after = 10.0

    found = looks(watch, [1] * 20, start=after)

    assert found.index(True) * BEAT_S >= max(RECOVERY_S, LEASE_S)


@pytest.mark.quick
def test_a_late_look_starts_the_lease_anew() -> None:
    watch = Watch(LEASE_S)
    looks(watch, [1, 1])

    assert looks(watch, [1] * 5, start=BEAT_S + 0.9 * LEASE_S) == [False] * 4 + [True]


# With real processes


async def workers_of(system: System) -> list[Life]:
    async with open_database(system.settings.database_url) as database:
        return await database.read(lives)


@pytest.mark.slow
@both_databases
async def test_a_worker_that_dies_is_succeeded_by_another(
    sql: Sql, new_system: Callable[..., System]
) -> None:
    system = new_system(**sql.settings()).start(workers=2)
    async with Client(system.web.url, system.new_key()) as client:
        sent = await client.send("/demo tokens=600 rate=100")
        async with reading(client, sent) as seen:
            await some_tokens(seen)
            system.owner_of(sent["generation_id"]).kill()
        await check_all(client, sent, seen)

    row = system.row(sent["generation_id"])
    assert "resumed" in types_of(seen[0])
    assert (row.attempt, row.crashes) == (2, 1)
    assert row.beat > 0
    assert len(await workers_of(system)) == 1


@pytest.mark.slow
async def test_a_worker_whose_event_loop_stalls_longer_than_its_lease_keeps_its_answers(
    new_system: Callable[..., System],
) -> None:
    system = new_system().start(workers=0)
    stalling = system.start_worker(module=DYING, FAULT=f"stall {2 * LEASE_S} 50 append")
    async with Client(system.web.url, system.new_key()) as client:
        sent = await client.send("/demo tokens=300 rate=100")
        async with reading(client, sent) as seen:
            await some_tokens(seen, 5)
            system.start_worker()
        await check_all(client, sent, seen)

    assert system.row(sent["generation_id"]).owner == stalling.worker_name
    row = system.row(sent["generation_id"])
    assert (row.attempt, row.crashes) == (1, 0)


@pytest.mark.slow
@both_databases
async def test_a_worker_that_was_declared_dead_by_mistake_registers_and_goes_on(
    sql: Sql, new_system: Callable[..., System]
) -> None:
    system = new_system(**sql.settings()).start(workers=1)
    async with Client(system.web.url, system.new_key()) as client:
        sent = await client.send("/demo tokens=600 rate=100")
        async with reading(client, sent) as seen:
            await some_tokens(seen)
            [worker] = await workers_of(system)
            async with open_database(system.settings.database_url) as database:
                await database.write(_declare_dead, worker.name)
        await check_all(client, sent, seen)

    assert system.row(sent["generation_id"]).attempt == 2
    assert [life.name for life in await workers_of(system)] == [worker.name]


def _declare_dead(session: Session, name: str) -> None:
    session.execute(delete(Worker).where(col(Worker.name) == name))
    for row in session.execute(select(Generation).where(col(Generation.owner) == name)).scalars():
        row.owner, row.crashes = None, row.crashes + 1


@pytest.mark.slow
async def test_workers_of_the_earlier_version_are_watched_by_the_beat_of_their_rows(
    new_system: Callable[..., System],
) -> None:
    """They have no row of their own, and raise the beat of every answer each second."""
    system = new_system().start(workers=0)
    async with Client(system.web.url, system.new_key()) as client:
        sent = await client.send("/demo tokens=20 rate=0")
        id, old = sent["generation_id"], "wrk_of_the_earlier_version"

        def claim(session: Session) -> None:
            row = session.get_one(Generation, id)
            row.owner, row.attempt, row.status = old, 1, "running"

        def beat(session: Session) -> str | None:
            row = session.get_one(Generation, id)
            row.beat += 1
            return row.owner

        async with open_database(system.settings.database_url) as database:
            await database.write(claim)
            system.start_worker()
            for _ in range(int(STALE_AFTER_S) + 3):
                assert await database.write(beat) == old
                await asyncio.sleep(1)  # as often as such a worker beats
        snapshot = await client.read_through(id)

    assert snapshot[-1].type == "completed"
    assert system.row(id).crashes == 1


@pytest.mark.slow
async def test_while_workers_of_the_earlier_version_may_run_the_beats_of_rows_rise(
    new_system: Callable[..., System],
) -> None:
    """Those would take over answers whose beat has not risen for eight seconds."""
    system = new_system().start(workers=0)
    async with open_database(system.settings.database_url) as database:
        await database.write(register, EARLIER_VERSION, 0, 0.0)
    system.start_worker()
    async with Client(system.web.url, system.new_key()) as client:
        sent = await client.send("/demo tokens=10 rate=0 stall_after=3")
        await condition(lambda: system.row(sent["generation_id"]).beat >= 2)
        await client.cancel(sent["generation_id"])

    assert system.row(sent["generation_id"]).attempt == 1
