"""A worker is killed at every step between queue and closed log: readers only see a pause."""

import asyncio
from typing import Any, NamedTuple

import pytest

from tests.client import Client, Event
from tests.databases import Sql, both_databases, on_sqlite
from tests.deaths import begin, death_of, waiting_worker
from tests.outcome import Outcome, outcome_of
from tests.system import System
from tests.test_faults import condition

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), both_databases]

READERS = 3
PACED = "tokens=200 rate=100"


class Point(NamedTuple):
    """Where a worker dies, which events readers see, and the attempts and crashes of the row."""

    fault: str
    types: set[str]
    attempts: int
    crashes: int


TAKEN_OVER = [
    # Whether attempt 1 wrote anything is unknown.
    Point("die after 1 claim", {"restarted"}, 2, 1),
    Point("die before 1 open", {"restarted"}, 2, 1),
    Point("die after 1 open", {"started"}, 2, 1),
    Point("die before 1 append", {"started"}, 2, 1),
    Point("die after 1 append", {"started", "resumed"}, 2, 1),
    Point("die before 20 append", {"started", "resumed"}, 2, 1),
    Point("die after 20 append", {"started", "resumed"}, 2, 1),
    Point("die before 2 checkpoint", {"started", "resumed"}, 2, 1),
    Point("die after 2 checkpoint", {"started", "resumed"}, 2, 1),
    Point("die before 1 last_append", {"started", "resumed"}, 2, 1),
    Point("die after 1 last_append", {"started", "resumed"}, 2, 1),
    Point("die before 1 settle", {"started", "resumed"}, 2, 1),
]
SETTLED = [
    Point("die after 1 settle", {"started"}, 1, 0),
    Point("die before 1 close", {"started"}, 1, 0),
    Point("die after 1 close", {"started"}, 1, 0),
    Point("die before 1 mark_sealed", {"started"}, 1, 0),
    Point("die after 1 mark_sealed", {"started"}, 1, 0),
]
NOT_CLAIMED = [
    Point("die before 1 claim", {"started"}, 1, 0),
    Point("die after 1 pop", {"started"}, 1, 0),
]
# Answers that were not claimed go to any worker with a slot, so they come last.
POINTS = [*TAKEN_OVER, *SETTLED, *NOT_CLAIMED]
AT_SQL = [
    point
    for point in POINTS
    if point.fault.split()[-1] in {"claim", "checkpoint", "settle", "mark_sealed"}
]
AT_REDIS = [point for point in POINTS if point not in AT_SQL]


@pytest.fixture(scope="module")
def outcomes(sql: Sql, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The outcome of one answer per point, all in one installation."""
    system = System(
        tmp_path_factory.mktemp("points"),
        sql.settings() | {"worker": {"concurrency": 1, "drain_s": 1}},
    )
    try:
        system.start()
        return asyncio.run(kill_at_every_point(system, POINTS if sql.name == "SQLite" else AT_SQL))
    finally:
        system.close()


async def kill_at_every_point(system: System, points: list[Point]) -> dict[str, Outcome]:
    """Send one message per point.

    The only ordinary worker has no free slot, so every job goes to the worker that is about to die.
    """
    sent: dict[str, dict[str, Any]] = {}
    seen: dict[str, list[list[Event]]] = {}
    async with Client(system.web.url, await asyncio.to_thread(system.new_key)) as client:
        busy = await client.send("/demo tokens=5 stall_after=1\nbusy")
        await condition(lambda: system.row(busy["generation_id"]).owner)
        dying = waiting_worker(system, points[0].fault)
        async with asyncio.TaskGroup() as tasks:
            for point, following in zip(points, [*points[1:], None], strict=True):
                sent[point.fault] = each = await client.send(f"/demo {PACED}\n{point.fault}")
                seen[point.fault] = [[] for _ in range(READERS)]
                for events in seen[point.fault]:
                    tasks.create_task(client.read_through(each["generation_id"], events))
                await begin(system, dying, point.fault)
                next_dying = waiting_worker(system, following.fault) if following else dying
                await death_of(dying)
                if point in TAKEN_OVER:  # by the ordinary worker, not by the next that dies
                    id = each["generation_id"]
                    await condition(lambda id=id: system.row(id).attempt > 1, 60)  # type: ignore[misc]
                dying = next_dying
            system.start_worker()
        return {fault: await outcome_of(system, client, sent[fault], seen[fault]) for fault in sent}


@pytest.mark.parametrize("point", AT_SQL, ids=lambda point: point.fault)
def test_an_answer_survives_the_death_of_its_worker_at_any_transaction(
    point: Point, outcomes: dict[str, Outcome], sql: Sql
) -> None:
    check(point, outcomes[point.fault], sql.name)


@on_sqlite
@pytest.mark.parametrize("point", AT_REDIS, ids=lambda point: point.fault)
def test_an_answer_survives_the_death_of_its_worker_at_any_redis_step(
    point: Point, outcomes: dict[str, Outcome], sql: Sql
) -> None:
    check(point, outcomes[point.fault], sql.name)


def check(point: Point, outcome: Outcome, database: str) -> None:
    outcome.note(f"worker: {point.fault}", database)
    outcome.check()
    assert outcome.row.status == "completed"
    assert len(outcome.snapshot["text"].split(" ")) == 200
    assert (outcome.row.attempt, outcome.row.crashes) == (point.attempts, point.crashes)
    assert outcome.types & {"started", "resumed", "restarted", "snapshot"} == point.types
