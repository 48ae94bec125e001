"""Redis loses all data while an owner is frozen or dies: the log is rewritten consistently."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.client import Client, Event
from tests.databases import Sql, both_databases
from tests.outcome import outcome_of
from tests.readers import reading, some_tokens
from tests.system import System
from tests.waiting import condition

pytestmark = [pytest.mark.slow, both_databases]

BEYOND = 900  # more events than attempt 1 writes, fewer than 1,000,000


@pytest.fixture(scope="module")
def system(sql: Sql, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One installation for the tests of this file; each test leaves two workers running."""
    system = System(tmp_path_factory.mktemp("lost"), sql.settings())
    try:
        yield system.start(workers=2)
    finally:
        system.close()


@pytest.fixture(scope="module")
def key(system: System) -> str:
    return system.new_key()


async def test_a_thawed_worker_writes_nothing_to_an_emptied_redis(
    system: System, key: str, sql: Sql
) -> None:
    async with Client(system.web.url, key) as client:
        sent = await client.send("/demo tokens=700 rate=100\nfrozen")
        async with reading(client, sent) as seen:
            await some_tokens(seen)
            frozen = system.owner_of(sent["generation_id"])
            frozen.freeze()
            await condition(
                lambda: all(any(event.type == "resumed" for event in events) for events in seen), 30
            )
            successor = system.owner_of(sent["generation_id"])
            successor.freeze()  # so that the thawed one finds no keys
            system.redis().flushall()
            frozen.thaw()
            await condition(lambda: '"event": "superseded"' in frozen.output())
            keys_after_thaw = system.redis().keys(f"*{sent['generation_id']}*")
            successor.thaw()
        outcome = await outcome_of(system, client, sent, seen)

    outcome.note("worker frozen until succeeded, then FLUSHALL", sql.name)
    outcome.check()
    assert keys_after_thaw == []
    assert (outcome.row.attempt, outcome.row.crashes, outcome.state["epoch"]) == (2, 1, "2")
    assert "restarted" not in outcome.types


async def test_a_cursor_beyond_a_restarted_log_waits_for_later_events(
    system: System, key: str, sql: Sql
) -> None:
    async with Client(system.web.url, key) as client:
        sent = await client.send("/demo tokens=500 rate=100\nbeyond")
        id = sent["generation_id"]
        async with asyncio.TaskGroup() as tasks, reading(client, sent) as seen:
            await some_tokens(seen)
            before = tasks.create_task(client.read(id, after=BEYOND))
            system.owner_of(id).kill()
            system.redis().flushall()
            system.start_worker()
            await condition(
                lambda: all(any(event.seq > 1_000_010 for event in events) for events in seen), 30
            )
            after = tasks.create_task(client.read(id, after=BEYOND))
            ahead = tasks.create_task(client.read(id, after=1_000_200))
        outcome = await outcome_of(system, client, sent, seen)
        refused = await client.http.get(
            f"/api/generations/{id}/events", params={"after": outcome.row.seq + 1}
        )
        ended = await client.http.get(
            f"/api/generations/{id}/events", params={"after": outcome.row.seq}
        )

    outcome.note("worker killed and FLUSHALL, readers ahead", sql.name)
    outcome.check()
    assert (outcome.row.attempt, outcome.row.crashes) == (2, 1)
    restarted = beyond(outcome.late, BEYOND)
    assert (restarted[0].type, restarted[0].seq) == ("restarted", 1_000_001)
    for events in seen:
        assert beyond(events, BEYOND) == restarted
    assert before.result() == after.result() == restarted
    assert ahead.result() == beyond(restarted, 1_000_200)
    assert (refused.status_code, refused.json()["code"], ended.status_code) == (
        400,
        "invalid_cursor",
        204,
    )


def beyond(events: list[Event], cursor: int) -> list[Event]:
    return [event for event in events if event.seq > cursor]
