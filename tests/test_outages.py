"""PostgreSQL is stopped or frozen during answers: text keeps streaming and no owner is lost."""

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


@pytest.mark.parametrize("outage_s", [5, 20])
@pytest.mark.parametrize("outage", OUTAGES)
async def test_text_keeps_streaming_during_an_outage_of_sql(
    outage: str, outage_s: int, new_system: Callable[..., System], postgres: Postgres
) -> None:
    begin_outage, end_outage = OUTAGES[outage]
    system = await asyncio.to_thread(lambda: new_system(worker={"concurrency": 2}).start(workers=3))
    async with (
        Client(system.web.url, await asyncio.to_thread(system.new_key)) as client,
        AsyncExitStack() as stack,
    ):
        longer = [
            await client.send(f"/demo tokens={RATE * (outage_s + 8)} rate={RATE}\n{outage} {n}")
            for n in range(5)
        ]
        seen = [await stack.enter_async_context(reading(client, each, 2)) for each in longer]
        await some_tokens([events for each in seen for events in each], 5)
        ending = await client.send(
            f"/demo tokens={RATE * ENDING_S} rate={RATE}\nends while SQL is away"
        )
        sent = [*longer, ending]
        seen.append(await stack.enter_async_context(reading(client, ending, 2)))
        all_readers: list[list[Event]] = [events for each in seen for events in each]
        await some_tokens(all_readers, 5)
        owners = {system.row(each["generation_id"]).owner for each in sent}
        await asyncio.to_thread(begin_outage, postgres)
        try:
            late_reader = await stack.enter_async_context(reading(client, longer[0], 1))
            await asyncio.sleep(outage_s)  # the duration of the outage
            await more_events([events for each in seen[:-1] for events in each])
            # An answer cannot end before its row is settled.
            assert all(events[-1].type == "text_delta" for events in all_readers)
        finally:
            await asyncio.to_thread(end_outage, postgres)
        await condition(lambda: all(events[-1].type == "completed" for events in all_readers), 60)
        await condition(lambda: late_reader[0] and late_reader[0][-1].type == "completed", 60)
        seen[0] += late_reader

        outcomes = [
            await outcome_of(system, client, each, events)
            for each, events in zip(sent, seen, strict=True)
        ]
    assert len(owners) == 3
    for outcome in outcomes:
        outcome.check()
        assert (outcome.row.attempt, outcome.row.crashes, outcome.row.status) == (1, 0, "completed")
        assert outcome.types == {"queued", "started", "text_delta", "completed"}
    outcomes[0].note(f"SQL {outage} for {outage_s} s", "PostgreSQL")
    outcomes[-1].note(f"SQL {outage} for {outage_s} s, the answer ends meanwhile", "PostgreSQL")


async def more_events(seen: list[list[Event]]) -> None:
    """Wait until each of these readers has received more events."""
    had: list[Any] = [len(events) for events in seen]
    await condition(
        lambda: all(len(events) > before for events, before in zip(seen, had, strict=True))
    )
