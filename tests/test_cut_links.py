"""Redis links that are cut, fall silent, lose a reply or deliver late: readers only see a pause."""

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from server.settings import embedded_socket
from server.stream.link import Link, LinkLost
from server.stream.log import APPEND, CLOSE, OPEN
from tests.client import Client
from tests.databases import Sql, both_databases, on_sqlite
from tests.links import Linked, url_of
from tests.outcome import Outcome, outcome_of
from tests.proxy import Mode, Proxy, Then
from tests.readers import reading, some_tokens
from tests.system import System
from tests.waiting import condition

pytestmark = [pytest.mark.slow, both_databases]

FAULT_S = 6.0
PACED = "tokens=200 rate=100"
SCRIPTS = {"open": OPEN.sha, "append": APPEND.sha, "close": CLOSE.sha}
NO_EVENTS, SNAPSHOT = frozenset[str](), frozenset({"snapshot"})
"""A web process that finds an answer settled while its connections are dead sends the row instead.
"""


def check(
    outcome: Outcome, case: str, database: str, *, allowed: frozenset[str] = NO_EVENTS
) -> None:
    """Check that there was one attempt without a crash and that readers saw no trace of it."""
    outcome.note(case, database)
    outcome.check()
    assert outcome.row.status == "completed"
    assert (outcome.row.attempt, outcome.row.crashes) == (1, 0)
    assert outcome.types & {"resumed", "restarted", "snapshot"} <= allowed


@on_sqlite
@pytest.mark.parametrize("mode", [Mode.SILENT, Mode.GONE], ids=lambda mode: mode.name.lower())
async def test_an_answer_survives_a_fault_of_the_web_process_link(
    linked: Linked, sql: Sql, mode: Mode
) -> None:
    await fail_during_answer(linked, sql, "web", mode)


@on_sqlite
@pytest.mark.parametrize(
    "mode", [Mode.SILENT, Mode.DEAF, Mode.LATE, Mode.GONE], ids=lambda mode: mode.name.lower()
)
async def test_an_answer_survives_a_fault_of_the_worker_link(
    linked: Linked, sql: Sql, mode: Mode
) -> None:
    await fail_during_answer(linked, sql, "worker", mode)


async def fail_during_answer(linked: Linked, sql: Sql, side: str, mode: Mode) -> None:
    """Let a link fail for a while and recover before the answer ends."""
    link = linked.web_link if side == "web" else linked.worker_link
    async with Client(linked.system.web.url, linked.key) as client:
        sent = await client.send(f"/demo tokens=700 rate=100\n{side} {mode}")
        async with reading(client, sent) as seen:
            await some_tokens(seen)
            link.be(mode)
            await asyncio.sleep(FAULT_S)  # the duration of the fault
            link.be(Mode.PASS)
        outcome = await outcome_of(linked.system, client, sent, seen)

    check(
        outcome,
        f"link of the {side} {mode.name.lower()} for 6 s in mid-answer",
        sql.name,
        allowed=SNAPSHOT if side == "web" else NO_EVENTS,
    )


async def test_messages_are_accepted_while_every_link_is_silent(linked: Linked, sql: Sql) -> None:
    async with Client(linked.system.web.url, linked.key) as client:
        # Use the pooled connections once.
        await client.read_through((await client.send("/demo tokens=1"))["generation_id"])
        linked.be(Mode.SILENT)
        async with asyncio.timeout(15):
            all_sent = await asyncio.gather(
                *(client.send(f"/demo {PACED}\nsilent {n}") for n in range(20))
            )
        async with reading(client, all_sent[0]) as seen:
            await condition(lambda: all(seen))
            linked.be(Mode.PASS)
        outcome = await outcome_of(linked.system, client, all_sent[0], seen)
        for sent in all_sent[1:]:
            (await outcome_of(linked.system, client, sent, [])).check()

    check(outcome, "every link silent at the question", sql.name, allowed=SNAPSHOT)


@on_sqlite
def test_a_connection_reset_while_connecting_is_an_outage(
    new_system: Callable[..., System],
) -> None:
    async def connect() -> None:
        for _ in range(2_000):  # the reset must hit the second write
            with pytest.raises(LinkLost):
                await Link.connect(url_of(link))

    system = new_system()
    system.start_redis()
    with Proxy(embedded_socket(system.settings.data_dir)) as link:
        link.be(Mode.GONE)
        uvloop.run(connect())


@on_sqlite
async def test_stop_works_while_every_link_is_silent(linked: Linked, sql: Sql) -> None:
    async with Client(linked.system.web.url, linked.key) as client:
        sent = await client.send("/demo tokens=2000 rate=100\nstop")
        async with reading(client, sent) as seen:
            await some_tokens(seen)
            linked.be(Mode.SILENT)
            await client.cancel(sent["generation_id"])
        linked.be(Mode.PASS)
        outcome = await outcome_of(linked.system, client, sent, seen)

    outcome.note("every link silent, then stop", sql.name)
    outcome.check()
    assert (outcome.row.status, outcome.row.attempt) == ("cancelled", 1)
    assert len(outcome.snapshot["text"].split(" ")) >= 20


@pytest.mark.parametrize("then", ["silence", "cut", "lose reply"])
@pytest.mark.parametrize("step", ["open", "close"])
async def test_an_answer_survives_link_faults_when_its_log_is_opened_or_closed(
    linked: Linked, sql: Sql, step: str, then: Then
) -> None:
    await fail_at(linked, sql, step, then)


@on_sqlite
@pytest.mark.parametrize("then", ["silence", "cut", "lose reply"])
async def test_an_answer_survives_link_faults_at_an_append(
    linked: Linked, sql: Sql, then: Then
) -> None:
    await fail_at(linked, sql, "append", then)


async def fail_at(linked: Linked, sql: Sql, step: str, then: Then) -> None:
    """Let the worker's link fail at a script or its reply.

    With `silence`, every link falls silent.
    """
    trap = linked.worker_link.trap(SCRIPTS[step], then)
    async with Client(linked.system.web.url, linked.key) as client:
        sent = await client.send(f"/demo {PACED}\n{step} {then}")
        async with reading(client, sent) as seen:
            await condition(trap.sprung.is_set)
            if then == "silence":
                linked.be(Mode.SILENT)  # the web process is cut off as well
                await asyncio.sleep(FAULT_S)  # the duration of the fault
                linked.be(Mode.PASS)
        outcome = await outcome_of(linked.system, client, sent, seen)

    if then == "silence":
        check(outcome, f"every link silent from {step} on, for 6 s", sql.name, allowed=SNAPSHOT)
    else:
        check(outcome, f"link of the worker: {then} at {step}", sql.name)


@pytest.mark.parametrize("then", ["cut", "lose reply"])
async def test_an_answer_survives_a_link_fault_while_its_job_is_enqueued(
    linked: Linked, sql: Sql, then: Then
) -> None:
    trap = linked.web_link.trap(b"jobs:answers", then)
    async with Client(linked.system.web.url, linked.key) as client:
        sent = await client.send(f"/demo {PACED}\n{then}")
        assert trap.sprung.is_set()
        async with reading(client, sent) as seen:
            pass
        outcome = await outcome_of(linked.system, client, sent, seen)

    check(outcome, f"link of the web process: {then} at the job", sql.name)


async def test_a_job_lost_between_queue_and_worker_is_enqueued_again(
    linked: Linked, sql: Sql
) -> None:
    trap = linked.worker_link.trap(b"BZPOPMIN", "lose reply")
    async with Client(linked.system.web.url, linked.key) as client:
        await condition(trap.sprung.is_set)
        sent = await client.send(f"/demo {PACED}\nlost job")
        async with reading(client, sent) as seen:
            pass
        outcome = await outcome_of(linked.system, client, sent, seen)

    check(outcome, "link of the worker: lose reply at the job", sql.name)
