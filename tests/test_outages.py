"""PostgreSQL goes away in the middle of answers: stopped, or frozen so that it neither answers nor hangs up. Text flows on meanwhile."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.client import Client, Event
from tests.databases import on_postgresql
from tests.outcome import outcome_of
from tests.postgres import Postgres
from tests.readers import reading, some_tokens
from tests.system import System
from tests.waiting import condition

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), on_postgresql]

RATE = 50
ENDING_S = 3
OUTAGES: dict[str, tuple[Callable[[Postgres], None], Callable[[Postgres], None]]] = {
    "stopped": (Postgres.stop, Postgres.start),
    "frozen": (Postgres.freeze, Postgres.thaw),
}


@pytest.mark.parametrize("away_s", [5, 20])
@pytest.mark.parametrize("how", OUTAGES)
async def test_text_flows_on_while_sql_is_away_and_nobody_is_taken_for_dead(
    how: str, away_s: int, new_system: Callable[..., System], postgres: Postgres
) -> None:
    go, come = OUTAGES[how]
    system = await asyncio.to_thread(lambda: new_system(worker={"concurrency": 2}).start(workers=3))
    async with (
        Client(system.web.url, await asyncio.to_thread(system.new_key)) as client,
        AsyncExitStack() as stack,
    ):
        longer = [
            await client.send(f"/demo tokens={RATE * (away_s + 8)} rate={RATE}\n{how} {n}")
            for n in range(5)
        ]
        ending = await client.send(
            f"/demo tokens={RATE * ENDING_S} rate={RATE}\nends while SQL is away"
        )
        sent = [*longer, ending]
        seen = [await stack.enter_async_context(reading(client, each, 2)) for each in sent]
        everybody: list[list[Event]] = [events for each in seen for events in each]
        await some_tokens(everybody, 5)
        owners = {system.row(each["generation_id"]).owner for each in sent}
        await asyncio.to_thread(go, postgres)
        try:
            comes_late = await stack.enter_async_context(reading(client, longer[0], 1))
            await asyncio.sleep(away_s)  # the fault itself: SQL is away for so long
            await all_go_on([events for each in seen[:-1] for events in each])
            assert all(
                events[-1].type == "text_delta" for events in everybody
            )  # the one that is over waits for SQL to know
        finally:
            await asyncio.to_thread(come, postgres)
        await condition(lambda: all(events[-1].type == "completed" for events in everybody), 60)
        await condition(lambda: comes_late[0] and comes_late[0][-1].type == "completed", 60)
        seen[0] += comes_late

        outcomes = [
            await outcome_of(system, client, each, events)
            for each, events in zip(sent, seen, strict=True)
        ]
    assert len(owners) == 3
    for outcome in outcomes:
        outcome.check()
        assert (outcome.row.attempt, outcome.row.crashes, outcome.row.status) == (1, 0, "completed")
        assert outcome.types == {"queued", "started", "text_delta", "completed"}
    outcomes[0].note(f"SQL {how} for {away_s} s", "PostgreSQL")
    outcomes[-1].note(f"SQL {how} for {away_s} s, the answer ends meanwhile", "PostgreSQL")


async def all_go_on(seen: list[list[Event]]) -> None:
    """Waits until every one of these readers has got more."""
    had: list[Any] = [len(events) for events in seen]
    await condition(
        lambda: all(len(events) > before for events, before in zip(seen, had, strict=True))
    )
