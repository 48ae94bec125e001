"""Load: full workers, a thousand readers, and 300 races between stop and completion."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import pytest

from server.history.database import open_database
from server.history.tables import Generation
from tests.client import Client, Event
from tests.databases import both_databases
from tests.fault_table import note
from tests.many_readers import ManyReaders, allow_connections, has_ended
from tests.outcome import Outcome, log_of, outcome_of
from tests.readers import reading
from tests.system import System
from tests.waiting import condition

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), both_databases]

READERS = 1000
RACES, LANES = 300, 10
WAIT_S = 60
SLOTS = 5


Make = Callable[..., System]


async def all_have(seen: list[list[Event]], events: int) -> None:
    """Wait until each of these readers has more than this many events."""
    await condition(lambda: min(map(len, seen)) > events, WAIT_S)


class Group(NamedTuple):
    """Answers with the same script, and what the readers of each saw."""

    sent: list[dict[str, Any]]
    seen: list[list[list[Event]]]

    @property
    def all_readers(self) -> list[list[Event]]:
        return [events for each in self.seen for events in each]

    async def have(self, events: int) -> None:
        await all_have(self.all_readers, events)

    async def end(self) -> None:
        await condition(lambda: all(map(has_ended, self.all_readers)), WAIT_S)


class Race(NamedTuple):
    """An answer that was stopped near its end: the response to the stop, and what readers saw."""

    generation_id: str
    answered: dict[str, Any]
    seen: list[list[Event]]


async def test_a_thousand_readers_resume_after_their_web_process_dies(new_system: Make) -> None:
    allow_connections(READERS)
    system = await asyncio.to_thread(lambda: new_system().start(webs=2))
    dying, other = system.of("web")
    key = await asyncio.to_thread(system.new_key)
    async with Client(dying.url, key) as doomed, Client(other.url, key) as client:
        sent = await client.send("/demo tokens=100000 rate=5\na thousand")
        readers = ManyReaders(sent["events_url"], key, [dying.url], READERS)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(readers.read())
            await all_have(readers.seen, 10)
            assert (await doomed.get("/status"))["web"]["open_streams"] == READERS
            readers.urls[:] = [other.url]
            dying.kill()
            await all_have(readers.seen, max(map(len, readers.seen)) + 10)
            await client.cancel(sent["generation_id"])
        outcome = await outcome_of(system, client, sent, readers.seen)

    outcome.note("web process of 1,000 readers killed", system.database)
    outcome.check()
    assert outcome.types == {"queued", "started", "text_delta", "cancelled"}
    assert {events[0].seq for events in readers.seen} == {1}


async def test_a_full_worker_adopts_answers_of_a_dead_one_but_starts_no_queued_ones(
    new_system: Make,
) -> None:
    system = await asyncio.to_thread(lambda: new_system(worker={"concurrency": SLOTS}).start())
    async with (
        Client(system.web.url, await asyncio.to_thread(system.new_key)) as client,
        AsyncExitStack() as stack,
    ):

        async def send(script: str) -> Group:
            sent = [await client.send(f"/demo {script}\n{script} {n}") for n in range(SLOTS)]
            return Group(
                sent, [await stack.enter_async_context(reading(client, each, 2)) for each in sent]
            )

        endless = await send("tokens=100000 rate=20")
        await endless.have(5)
        dying = await asyncio.to_thread(system.start_worker)
        adopted = await send("tokens=300 rate=50")  # the first worker is full
        await adopted.have(20)
        queued = await send("tokens=40 rate=100")
        dying.kill()
        await adopted.end()
        # No slot was free so far.
        assert all([event.type for event in events] == ["queued"] for events in queued.all_readers)
        assert not any(has_ended(events) for events in endless.all_readers)
        for each in endless.sent:
            await client.cancel(each["generation_id"])
        await queued.end()
        groups = endless, adopted, queued
        outcomes = [
            [
                await outcome_of(system, client, *answer)
                for answer in zip(each.sent, each.seen, strict=True)
            ]
            for each in groups
        ]

    for case, group_outcomes in zip(
        ("still written", "left behind", "waiting"), outcomes, strict=True
    ):
        for outcome in group_outcomes:
            outcome.check()
        group_outcomes[0].note(f"one of two full workers killed: {case}", system.database)
    assert [
        {(each.row.attempt, each.row.crashes) for each in group_outcomes}
        for group_outcomes in outcomes
    ] == [
        {(1, 0)},
        {(2, 1)},
        {(1, 0)},
    ]
    assert [
        {each.snapshot["status"] for each in group_outcomes} for group_outcomes in outcomes
    ] == [
        {"cancelled"},
        {"completed"},
        {"completed"},
    ]
    assert all(
        "resumed" in outcome.types and "restarted" not in outcome.types for outcome in outcomes[1]
    )


async def test_three_hundred_races_of_stop_and_completion_have_one_end_each(
    new_system: Make,
) -> None:
    system = await asyncio.to_thread(lambda: new_system().start(webs=2))
    key = await asyncio.to_thread(system.new_key)
    one, other = system.of("web")
    async with Client(one.url, key) as client, Client(other.url, key) as stopper:

        async def race(lane: int) -> list[Race]:
            """Stop answers near their end.

            After a stop that won, the next one comes later; after one that lost, earlier or to a
            longer answer.
            """
            races: list[Race] = []
            stop_after_ms = 10
            for n in range(lane, RACES, LANES):
                sent = await client.send(
                    f"/demo tokens={max(1, -stop_after_ms // 5)} rate=200\nrace {n}"
                )
                readers = [
                    asyncio.create_task(each.read_through(sent["generation_id"]))
                    for each in (client, stopper)
                ]
                await asyncio.sleep(max(0, stop_after_ms) / 1000)
                answered = await stopper.cancel(sent["generation_id"])
                races.append(Race(sent["generation_id"], answered, await asyncio.gather(*readers)))
                stop_after_ms += 4 if answered["status"] == "cancelled" else -4
            return races

        races = [each for lane in await asyncio.gather(*map(race, range(LANES))) for each in lane]
        outcomes = await outcomes_of(system, client, races)

    for each, outcome in zip(races, outcomes, strict=True):
        outcome.check()
        assert each.answered == outcome.snapshot
        # Only an answer that was stopped before it began has no log.
        assert outcome.log or outcome.row.status == "cancelled"
    assert {outcome.row.status for outcome in outcomes} == {"completed", "cancelled"}
    for status in ("completed", "cancelled"):
        note(
            f"stop races completion: {status}",
            [events for each in outcomes if each.row.status == status for events in each.seen],
            database=system.database,
        )


async def outcomes_of(system: System, client: Client, races: list[Race]) -> list[Outcome]:
    """Wait until the logs of these answers are closed; all rows are read at once."""
    late = [await client.read(each.generation_id) for each in races]
    snapshots = [await client.snapshot(each.generation_id) for each in races]
    async with asyncio.timeout(20), open_database(system.settings.database_url) as database:
        while True:
            rows = await database.read(
                lambda session: [session.get_one(Generation, each.generation_id) for each in races]
            )
            if all(row.sealed for row in rows):
                break
            await asyncio.sleep(0.1)
    ends = zip(races, late, snapshots, rows, strict=True)
    return [Outcome(each.seen, *end, *log_of(system, each.generation_id)) for each, *end in ends]
