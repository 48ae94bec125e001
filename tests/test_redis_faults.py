"""Valkey itself dies empty, forgets, is full or freezes, exactly when a job is sent, a log is opened, or a settled answer is closed."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from server.stream.log import CLOSE, OPEN
from tests.client import Client, Event
from tests.databases import Sql, both_databases, on_sqlite
from tests.links import Linked
from tests.outcome import Outcome, outcome_of
from tests.readers import reading
from tests.system import System
from tests.waiting import condition

pytestmark = [pytest.mark.slow, both_databases]

PACED = "tokens=200 rate=100"


async def dies_empty(system: System) -> None:
    system.valkey.kill()
    system.start_redis()  # not in a thread of its own: it ends with the thread that started it


async def forgets(system: System) -> None:
    await asyncio.to_thread(system.redis().flushall)


async def is_full(system: System) -> None:
    system.redis().config_set("maxmemory", 1024)


async def freezes(system: System) -> None:
    system.valkey.freeze()


async def is_well(system: System) -> None:
    """What had died or forgotten is well already."""
    system.valkey.thaw()
    await asyncio.to_thread(system.redis().config_set, "maxmemory", 0)


LASTING_S = {is_full: 3.0, freezes: 6.0}
FAULTS = [dies_empty, forgets, is_full, freezes]
Fault = Callable[[System], Awaitable[None]]


async def befall(linked: Linked, sql: Sql, match: bytes, fault: Fault, case: str) -> Outcome:
    """An answer whose bytes `match` are held on their way while the fault happens, and then go on."""
    link = linked.web_link if match == b"queue:answers" else linked.worker_link
    trap = link.trap(match, "hold")
    async with Client(linked.system.web.url, linked.key) as client:
        asking = asyncio.create_task(client.send(f"/demo {PACED}\n{case}"))
        readers = asyncio.create_task(read_when_asked(client, asking))
        await condition(trap.sprung.is_set)
        await fault(linked.system)
        link.release(trap)
        await asyncio.sleep(LASTING_S.get(fault, 0))  # the fault itself
        await is_well(linked.system)
        outcome = await outcome_of(linked.system, client, await asking, await readers)

    outcome.note(case, sql.name)
    outcome.check()
    assert outcome.row.status == "completed"
    assert len(outcome.snapshot["text"].split(" ")) == 200
    assert (outcome.row.attempt, outcome.row.crashes) == (1, 0)
    return outcome


async def read_when_asked(
    client: Client, asking: "asyncio.Task[dict[str, str]]"
) -> list[list[Event]]:
    async with reading(client, await asking) as seen:
        return seen


@on_sqlite
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_when_a_job_is_sent(linked: Linked, sql: Sql, fault: Fault) -> None:
    outcome = await befall(
        linked, sql, b"queue:answers", fault, f"Valkey {fault.__name__} as the job is sent"
    )

    assert outcome.types & {"resumed", "restarted", "snapshot"} == set()


@on_sqlite
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_when_a_log_is_to_be_opened(linked: Linked, sql: Sql, fault: Fault) -> None:
    outcome = await befall(linked, sql, OPEN.sha, fault, f"Valkey {fault.__name__} before open")

    assert outcome.types & {"resumed", "restarted", "snapshot"} == set()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_between_settle_and_close(linked: Linked, sql: Sql, fault: Fault) -> None:
    outcome = await befall(
        linked, sql, CLOSE.sha, fault, f"Valkey {fault.__name__} between settle and close"
    )

    assert outcome.types & {"resumed", "restarted"} == set()
    assert bool(outcome.log) == (fault in LASTING_S)
