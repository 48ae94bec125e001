"""Hosts whose clocks differ by two minutes: ownership, deadlines and sessions are unaffected."""

import asyncio
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from server.history.tables import now
from tests.client import TERMINAL, Client, Event, text_of
from tests.databases import both_databases, on_sqlite
from tests.outcome import outcome_of
from tests.readers import reading, some_tokens
from tests.system import System
from tests.test_identity import COOKIE, SAME_ORIGIN, STALLED, guest_of, is_refused, wait_until
from tests.waiting import condition

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), both_databases]

FAST, SLOW = "+60s", "-60s"
OFF = timedelta(seconds=30)
"""Two clocks that differ by more than this are different clocks."""

DEADLINE_S = 6
SLOTS = 3
"""One less than the number of answers, so that each worker gets some."""

UNDISTURBED_TOKENS = 240

Clock = Callable[[str], dict[str, str]]


@pytest.fixture
def clock() -> Clock:
    """The environment of a process whose wall clock is off.

    It needs Debian's `faketime`, which CI installs.
    """
    libraries = [
        file
        for folder in ("/usr/lib", "/usr/local/lib", "/usr/lib64")
        for file in Path(folder).glob("**/faketime/libfaketimeMT.so.1")
    ]
    if not libraries:
        reason = "no libfaketime here (Debian: apt-get install faketime)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return lambda offset: {
        "LD_PRELOAD": str(libraries[0]),
        "FAKETIME": offset,
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def start(system: System, clock: Clock) -> System:
    """Valkey has the right time, the web process and one worker are fast, one worker is slow."""
    system.start(webs=0, workers=0)
    system.start_worker(**clock(SLOW))
    system.start_worker(**clock(FAST))
    system.start_web(**clock(FAST))
    return system


async def test_only_dead_workers_lose_their_answers(
    new_system: Callable[..., System], clock: Clock
) -> None:
    system = await asyncio.to_thread(
        lambda: start(new_system(worker={"concurrency": SLOTS}), clock)
    )
    slow, fast = system.of("worker")
    async with (
        Client(system.web.url, await asyncio.to_thread(system.new_key)) as client,
        AsyncExitStack() as stack,
    ):
        sent_at = now()
        sent = [await client.send(f"/demo tokens=100000 rate=20\nclocks {n}") for n in range(4)]
        seen = [await stack.enter_async_context(reading(client, each, 2)) for each in sent]
        await condition(
            lambda: all(
                text_of(events).count(" ") > UNDISTURBED_TOKENS for each in seen for events in each
            ),
            60,
        )
        rows = [system.row(each["generation_id"]) for each in sent]

        slow.kill()
        await resumed(seen, [1 if row.owner == slow.worker_name else 0 for row in rows])
        system.start_worker(**clock(SLOW))
        fast.kill()
        await resumed(seen, [2 if row.owner == slow.worker_name else 1 for row in rows])
        for each in sent:
            assert (await client.cancel(each["generation_id"], wait_s=20))["status"] == "cancelled"
        outcomes = [
            await outcome_of(system, client, *answer) for answer in zip(sent, seen, strict=True)
        ]

    assert {row.owner for row in rows} == {slow.worker_name, fast.worker_name}
    assert {(row.attempt, row.crashes) for row in rows} == {(1, 0)}
    for row in rows:
        assert row.started_at is not None
        assert row.created_at > sent_at + OFF
        assert (
            (row.started_at < sent_at - OFF)
            if row.owner == slow.worker_name
            else (row.started_at > sent_at + OFF)
        )
    for outcome, row in zip(outcomes, rows, strict=True):
        outcome.check()
        assert (outcome.row.attempt, outcome.row.crashes) == (
            (3, 2) if row.owner == slow.worker_name else (2, 1)
        )
        assert outcome.types == {"queued", "started", "text_delta", "resumed", "cancelled"}
    outcomes[0].note("clocks 60 s fast and slow, workers killed", system.database)


async def test_deadlines_and_sessions_end_by_the_clock_that_started_them(
    new_system: Callable[..., System], clock: Clock
) -> None:
    settings = {
        "generation": {"deadline_s": DEADLINE_S},
        "auth": {"session_ttl_s": DEADLINE_S},
        "worker": {"concurrency": SLOTS},
    }
    system = await asyncio.to_thread(lambda: start(new_system(**settings), clock))
    async with (
        Client(system.web.url, await asyncio.to_thread(system.new_key)) as client,
        Client(system.web.url) as guest,
    ):
        sent = [await client.send(f"{STALLED}\ndeadline {n}") for n in range(4)]
        seen: list[list[Event]] = [[] for _ in sent]
        async with asyncio.TaskGroup() as tasks:
            for each, events in zip(sent, seen, strict=True):
                tasks.create_task(client.read_through(each["generation_id"], events))
            await some_tokens(seen, 2)
            guest.http.headers.update(SAME_ORIGIN | {"Cookie": f"{COOKIE}={await guest_of(guest)}"})
            assert not await is_refused(guest)
            guest_events = await guest.read((await guest.send(STALLED))["generation_id"])
            await wait_until(lambda: is_refused(guest))
        outcomes = [
            await outcome_of(system, client, each, [events])
            for each, events in zip(sent, seen, strict=True)
        ]

    assert len({outcome.row.owner for outcome in outcomes}) == 2
    for outcome in outcomes:
        outcome.check()
        assert (outcome.row.attempt, outcome.snapshot["error"]["code"]) == (1, "deadline_exceeded")
        assert (
            timedelta(0)
            <= outcome.row.finished_at - outcome.row.started_at - timedelta(seconds=DEADLINE_S)
            < OFF
        )
        assert outcome.types == {"queued", "started", "text_delta", "failed"}
    assert guest_events
    assert (
        guest_events[-1].type not in TERMINAL
        or guest_events[-1].data["code"] == "deadline_exceeded"
    )
    outcomes[0].note("clocks 60 s fast and slow, deadline", system.database)


@on_sqlite
async def test_a_step_of_redis_s_clock_delays_nobody_for_long(
    new_system: Callable[..., System], clock: Clock, tmp_path: Path
) -> None:
    """As when a machine wakes from sleep: Redis's clock has gone on, the monotonic one has not."""
    step = tmp_path / "step"
    step.write_text("+0")
    stepping = clock("") | {"FAKETIME_TIMESTAMP_FILE": str(step), "FAKETIME_NO_CACHE": "1"}
    del stepping["FAKETIME"]
    system = new_system()
    await asyncio.to_thread(system.migrate)
    system.start_redis(**stepping)
    await asyncio.to_thread(lambda: (system.start_worker(), system.start_web()))
    async with Client(system.web.url, await asyncio.to_thread(system.new_key)) as client:
        before = await client.send("/demo tokens=100 rate=20\nbefore")
        async with reading(client, before) as seen:
            await some_tokens(seen, 5)
            at = system.redis().time()[0]
            step.write_text("+60s")
            assert system.redis().time()[0] >= at + 60
            after = await client.send("/demo tokens=20 rate=0\nafter")
            events = await asyncio.wait_for(client.read_through(after["generation_id"]), 30)
        outcomes = [
            await outcome_of(system, client, before, seen),
            await outcome_of(system, client, after, [events]),
        ]

    for outcome in outcomes:
        outcome.check()
        assert (outcome.row.status, outcome.row.attempt) == ("completed", 1)
    outcomes[0].note("Valkey's clock steps by 60 s", system.database)


async def resumed(seen: list[list[list[Event]]], times: list[int]) -> None:
    """Wait until the readers of each answer saw this many `resumed` events, and text after them."""

    def holds(events: list[Event], count: int) -> bool:
        return (
            sum(event.type == "resumed" for event in events) == count
            and events[-1].type == "text_delta"
        )

    await condition(
        lambda: all(
            holds(events, n) for each, n in zip(seen, times, strict=True) for events in each
        ),
        60,
    )
