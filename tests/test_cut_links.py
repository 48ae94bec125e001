"""Links to Redis that are cut, fall silent, lose a reply or deliver late, at every point of an answer: a pause, and nothing else."""

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
NOTHING, SNAPSHOT = frozenset[str](), frozenset({"snapshot"})
"""A web process that finds an answer settled while it still meets dead connections tells its end by the row."""


def check(
    outcome: Outcome, case: str, database: str, *, may_tell: frozenset[str] = NOTHING
) -> None:
    """It was one attempt, of a worker that did not die, and readers were told nothing of the fault."""
    outcome.note(case, database)
    outcome.check()
    assert outcome.row.status == "completed"
    assert (outcome.row.attempt, outcome.row.crashes) == (1, 0)
    assert outcome.types & {"resumed", "restarted", "snapshot"} <= may_tell


@on_sqlite
@pytest.mark.parametrize("mode", [Mode.SILENT, Mode.GONE], ids=lambda mode: mode.name.lower())
async def test_the_link_of_the_web_process_fails_in_mid_answer(
    linked: Linked, sql: Sql, mode: Mode
) -> None:
    await fail_in_mid_answer(linked, sql, "web", mode)


@on_sqlite
@pytest.mark.parametrize(
    "mode", [Mode.SILENT, Mode.DEAF, Mode.LATE, Mode.GONE], ids=lambda mode: mode.name.lower()
)
async def test_the_link_of_the_worker_fails_in_mid_answer(
    linked: Linked, sql: Sql, mode: Mode
) -> None:
    await fail_in_mid_answer(linked, sql, "worker", mode)


async def fail_in_mid_answer(linked: Linked, sql: Sql, side: str, mode: Mode) -> None:
    """The link fails for a while and is well again before the answer ends."""
    link = linked.web_link if side == "web" else linked.worker_link
    async with Client(linked.system.web.url, linked.key) as client:
        sent = await client.send(f"/demo tokens=700 rate=100\n{side} {mode}")
        async with reading(client, sent) as seen:
            await some_tokens(seen)
            link.be(mode)
            await asyncio.sleep(FAULT_S)  # the fault itself: it lasts this long
            link.be(Mode.PASS)
        outcome = await outcome_of(linked.system, client, sent, seen)

    check(
        outcome,
        f"link of the {side} {mode.name.lower()} for 6 s in mid-answer",
        sql.name,
        may_tell=SNAPSHOT if side == "web" else NOTHING,
    )


async def test_questions_are_taken_while_every_link_is_silent(linked: Linked, sql: Sql) -> None:
    async with Client(linked.system.web.url, linked.key) as client:
        await client.read_through(
            (await client.send("/demo tokens=1"))["generation_id"]
        )  # what connections there are, are used
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

    check(outcome, "every link silent at the question", sql.name, may_tell=SNAPSHOT)


@on_sqlite
def test_a_connection_that_is_reset_while_it_is_made_is_an_outage(
    new_system: Callable[..., System],
) -> None:
    async def connect() -> None:
        for _ in range(2_000):  # it takes a reset at the very moment of the second write
            with pytest.raises(LinkLost):
                await Link.connect(url_of(link))

    system = new_system()
    system.start_redis()
    with Proxy(embedded_socket(system.settings.data_dir)) as link:
        link.be(Mode.GONE)
        uvloop.run(connect())


@on_sqlite
async def test_stop_needs_no_link(linked: Linked, sql: Sql) -> None:
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
async def test_links_fail_at_the_beginning_or_the_end(
    linked: Linked, sql: Sql, step: str, then: Then
) -> None:
    await fail_at(linked, sql, step, then)


@on_sqlite
@pytest.mark.parametrize("then", ["silence", "cut", "lose reply"])
async def test_links_fail_at_an_append(linked: Linked, sql: Sql, then: Then) -> None:
    await fail_at(linked, sql, "append", then)


async def fail_at(linked: Linked, sql: Sql, step: str, then: Then) -> None:
    """The worker's link fails when a script is on its way, or its reply; where it falls silent, all of them do."""
    trap = linked.worker_link.trap(SCRIPTS[step], then)
    async with Client(linked.system.web.url, linked.key) as client:
        sent = await client.send(f"/demo {PACED}\n{step} {then}")
        async with reading(client, sent) as seen:
            await condition(trap.sprung.is_set)
            if then == "silence":
                linked.be(Mode.SILENT)  # the web process does not get through either
                await asyncio.sleep(FAULT_S)  # the fault itself
                linked.be(Mode.PASS)
        outcome = await outcome_of(linked.system, client, sent, seen)

    if then == "silence":
        check(outcome, f"every link silent from {step} on, for 6 s", sql.name, may_tell=SNAPSHOT)
    else:
        check(outcome, f"link of the worker: {then} at {step}", sql.name)


@pytest.mark.parametrize("then", ["cut", "lose reply"])
async def test_the_link_of_the_web_process_fails_as_it_sends_the_job(
    linked: Linked, sql: Sql, then: Then
) -> None:
    trap = linked.web_link.trap(b"queue:answers", then)
    async with Client(linked.system.web.url, linked.key) as client:
        sent = await client.send(f"/demo {PACED}\n{then}")
        assert trap.sprung.is_set()
        async with reading(client, sent) as seen:
            pass
        outcome = await outcome_of(linked.system, client, sent, seen)

    check(outcome, f"link of the web process: {then} at the job", sql.name)


async def test_a_job_that_was_taken_by_nobody_is_sent_again(linked: Linked, sql: Sql) -> None:
    trap = linked.worker_link.trap(b"BZPOPMIN", "lose reply")
    async with Client(linked.system.web.url, linked.key) as client:
        await condition(trap.sprung.is_set)
        sent = await client.send(f"/demo {PACED}\ntaken by nobody")
        async with reading(client, sent) as seen:
            pass
        outcome = await outcome_of(linked.system, client, sent, seen)

    check(outcome, "link of the worker: lose reply at the job", sql.name)
