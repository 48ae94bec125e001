"""The deadline of an answer that another worker takes over does not depend on the clocks of two hosts."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlmodel import Session

from server.history.database import open_database
from server.history.tables import Generation
from server.history.workers import release_dead
from tests.client import Client
from tests.outcome import outcome_of
from tests.readers import reading, some_tokens
from tests.system import System
from tests.waiting import condition

DEADLINE_S = 60
REMAINING = "tokens=200 rate=20"
"""Ten seconds: more than an answer gets once its deadline has passed."""


@pytest.mark.slow
async def test_the_first_owner_s_wall_clock_does_not_count(
    new_system: Callable[..., System],
) -> None:
    system = await asyncio.to_thread(
        lambda: new_system(generation={"deadline_s": DEADLINE_S}).start()
    )
    async with Client(system.web.url, await asyncio.to_thread(system.new_key)) as client:
        sent = await client.send(f"/demo {REMAINING}\nclocks of two hosts")
        async with reading(client, sent) as seen:
            await some_tokens(seen)
            owner = system.worker
            await asyncio.to_thread(owner.kill)

            def leave(session: Session) -> None:
                """As if the dead owner's clock had been two minutes slow."""
                row = session.get_one(Generation, sent["generation_id"])
                assert row.started_at is not None
                row.started_at -= timedelta(seconds=2 * DEADLINE_S)
                session.flush()
                release_dead(session, owner.worker_name)

            async with open_database(system.settings.database_url) as database:
                await database.write(leave)
            system.start_worker()
            await condition(lambda: system.row(sent["generation_id"]).finished_at, 60)
        outcome = await outcome_of(system, client, sent, seen)

    outcome.check()
    assert (outcome.row.status, outcome.row.attempt) == ("completed", 2)


@pytest.mark.slow
async def test_what_earlier_owners_used_counts(new_system: Callable[..., System]) -> None:
    system = await asyncio.to_thread(
        lambda: new_system(generation={"deadline_s": DEADLINE_S}).start()
    )
    async with Client(system.web.url, await asyncio.to_thread(system.new_key)) as client:
        sent = await client.send("/demo tokens=100000 rate=20\nlong")
        async with reading(client, sent) as seen:
            await some_tokens(seen)
            owner = system.worker
            await asyncio.to_thread(owner.kill)

            def leave(session: Session) -> None:
                row = session.get_one(Generation, sent["generation_id"])
                row.beat += DEADLINE_S * 1000
                session.flush()
                release_dead(session, owner.worker_name)

            async with open_database(system.settings.database_url) as database:
                await database.write(leave)
            system.start_worker()
            await condition(lambda: system.row(sent["generation_id"]).finished_at, 40)
        outcome = await outcome_of(system, client, sent, seen)

    outcome.check()
    assert outcome.snapshot["error"]["code"] == "deadline_exceeded"
