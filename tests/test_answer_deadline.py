"""The deadline of an answer taken over by another worker does not depend on two hosts' clocks."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlmodel import Session

from server.history.database import open_database
from server.history.tables import Generation
from server.history.workers import release_dead
from tests.client import Client
from tests.outcome import Outcome, outcome_of
from tests.readers import reading, some_tokens
from tests.system import System
from tests.waiting import condition

DEADLINE_S = 60
REMAINING = "tokens=200 rate=20"
"""Ten seconds: more than an answer gets once its deadline has passed."""


async def take_over(
    system: System,
    client: Client,
    script: str,
    change: Callable[[Generation], None],
    *,
    ends_within_s: float,
) -> Outcome:
    """The outcome of an answer whose owner dies; `change` edits its row before a new one starts."""
    sent = await client.send(f"/demo {script}\ntake over")

    def release(session: Session) -> None:
        row = session.get_one(Generation, sent["generation_id"])
        change(row)
        session.flush()
        release_dead(session, owner.worker_name)

    async with reading(client, sent) as seen:
        await some_tokens(seen)
        owner = system.worker
        await asyncio.to_thread(owner.kill)
        async with open_database(system.settings.database_url) as database:
            await database.write(release)
        system.start_worker()
        await condition(lambda: system.row(sent["generation_id"]).finished_at, ends_within_s)
    return await outcome_of(system, client, sent, seen)


@pytest.mark.slow
async def test_the_deadline_does_not_depend_on_the_first_owners_wall_clock(
    new_system: Callable[..., System],
) -> None:
    system = await asyncio.to_thread(
        lambda: new_system(generation={"deadline_s": DEADLINE_S}).start()
    )

    def slow_clock(row: Generation) -> None:
        assert row.started_at is not None
        row.started_at -= timedelta(seconds=2 * DEADLINE_S)

    async with Client(system.web.url, await asyncio.to_thread(system.new_key)) as client:
        outcome = await take_over(system, client, REMAINING, slow_clock, ends_within_s=60)

    outcome.check()
    assert (outcome.row.status, outcome.row.attempt) == ("completed", 2)


@pytest.mark.slow
async def test_time_used_by_earlier_owners_counts_towards_the_deadline(
    new_system: Callable[..., System],
) -> None:
    system = await asyncio.to_thread(
        lambda: new_system(generation={"deadline_s": DEADLINE_S}).start()
    )

    def deadline_used(row: Generation) -> None:
        row.beat += DEADLINE_S * 1000

    async with Client(system.web.url, await asyncio.to_thread(system.new_key)) as client:
        outcome = await take_over(
            system, client, "tokens=100000 rate=20", deadline_used, ends_within_s=40
        )

    outcome.check()
    assert outcome.snapshot["error"]["code"] == "deadline_exceeded"
