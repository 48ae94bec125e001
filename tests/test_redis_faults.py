"""Valkey dies, is flushed, is full or freezes exactly when a job or log operation is sent."""

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


async def dies(system: System) -> None:
    system.valkey.kill()
    # Not in a thread: Valkey ends with the thread that started it.
    system.start_redis()


async def is_flushed(system: System) -> None:
    await asyncio.to_thread(system.redis().flushall)


async def is_full(system: System) -> None:
    system.redis().config_set("maxmemory", 1024)


async def freezes(system: System) -> None:
    system.valkey.freeze()


async def recover(system: System) -> None:
    """Undo a freeze and a memory limit; the other faults have already passed."""
    system.valkey.thaw()
    await asyncio.to_thread(system.redis().config_set, "maxmemory", 0)


FAULT_S = {is_full: 3.0, freezes: 6.0}
FAULTS = [dies, is_flushed, is_full, freezes]
Fault = Callable[[System], Awaitable[None]]


async def fault_at(linked: Linked, sql: Sql, match: bytes, fault: Fault, case: str) -> Outcome:
    """Hold the bytes `match` of an answer while the fault happens, then forward them."""
    link = linked.web_link if match == b"jobs:answers" else linked.worker_link
    trap = link.trap(match, "hold")
    async with Client(linked.system.web.url, linked.key) as client:
        sending = asyncio.create_task(client.send(f"/demo {PACED}\n{case}"))
        readers = asyncio.create_task(read_when_sent(client, sending))
        await condition(trap.sprung.is_set)
        await fault(linked.system)
        link.release(trap)
        await asyncio.sleep(FAULT_S.get(fault, 0))  # the duration of the fault
        await recover(linked.system)
        outcome = await outcome_of(linked.system, client, await sending, await readers)

    outcome.note(case, sql.name)
    outcome.check()
    assert outcome.row.status == "completed"
    assert len(outcome.snapshot["text"].split(" ")) == 200
    assert (outcome.row.attempt, outcome.row.crashes) == (1, 0)
    return outcome


async def read_when_sent(
    client: Client, sending: "asyncio.Task[dict[str, str]]"
) -> list[list[Event]]:
    async with reading(client, await sending) as seen:
        return seen


@on_sqlite
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_an_answer_survives_a_fault_while_its_job_is_enqueued(
    linked: Linked, sql: Sql, fault: Fault
) -> None:
    outcome = await fault_at(
        linked, sql, b"jobs:answers", fault, f"Valkey {fault.__name__} as the job is sent"
    )

    assert outcome.types & {"resumed", "restarted", "snapshot"} == set()


@on_sqlite
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_an_answer_survives_a_fault_before_its_log_is_opened(
    linked: Linked, sql: Sql, fault: Fault
) -> None:
    outcome = await fault_at(linked, sql, OPEN.sha, fault, f"Valkey {fault.__name__} before open")

    assert outcome.types & {"resumed", "restarted", "snapshot"} == set()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_an_answer_survives_a_fault_between_settling_and_closing(
    linked: Linked, sql: Sql, fault: Fault
) -> None:
    outcome = await fault_at(
        linked, sql, CLOSE.sha, fault, f"Valkey {fault.__name__} between settle and close"
    )

    assert outcome.types & {"resumed", "restarted"} == set()
    assert bool(outcome.log) == (fault in FAULT_S)
