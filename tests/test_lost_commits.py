"""PostgreSQL commits but the reply is lost: each answer still has exactly one end."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.client import Client
from tests.dying import mark_of
from tests.outcome import Outcome, outcome_of
from tests.postgres import Postgres
from tests.proxy import Proxy, Trap
from tests.system import System
from tests.test_faults import condition, reading, some_tokens

pytestmark = pytest.mark.slow

PACED = "tokens=200 rate=100"
WORKER_FAULT = "mark claim checkpoint settle hand_over"
WEB_FAULT = "mark write_turn request_cancel claim settle"


@dataclass(frozen=True)
class Installation:
    """A web and a worker process with their links to PostgreSQL."""

    system: System
    web_link: Proxy
    worker_link: Proxy
    key: str
    environment: dict[str, str]  # for another worker

    def start_worker(self) -> None:
        self.system.start_worker(module="tests.dying", **self.environment)


@pytest.fixture(scope="module")
def running(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One installation for all tests of this file; each test leaves one worker running."""
    url = postgres.new_url()
    address = urlsplit(url)
    socket = Path(parse_qs(address.query)["host"][0]) / ".s.PGSQL.5432"
    system = System(
        tmp_path_factory.mktemp("commits"), {"database": {"url": url}, "worker": {"drain_s": 0}}
    )

    def through(link: Proxy, marked: str) -> dict[str, str]:
        return {
            "TIDEMARK_DATABASE__URL": f"postgresql://postgres@127.0.0.1:{link.port}{address.path}",
            "FAULT": marked,
        }

    with Proxy(socket) as web_link, Proxy(socket) as worker_link:
        try:
            system.start_redis()
            system.run("migrate")
            web = system.start_web(wait=False, module="tests.dying", **through(web_link, WEB_FAULT))
            installation = Installation(
                system, web_link, worker_link, system.new_key(), through(worker_link, WORKER_FAULT)
            )
            installation.start_worker()
            system.wait_ready(web)
            yield installation
        finally:
            system.close()


def lose_reply_to_commit(link: Proxy, step: str) -> Trap:
    return link.trap(b"COMMIT", "lose reply", after=mark_of(step).encode())


def check(
    outcome: Outcome,
    step: str,
    trap: Trap,
    *,
    status: str = "completed",
    attempts: int = 1,
    crashes: int = 0,
) -> None:
    outcome.note(f"lost COMMIT reply: {step}", "PostgreSQL")
    assert trap.sprung.is_set()
    outcome.check()
    assert (outcome.row.status, outcome.row.attempt, outcome.row.crashes) == (
        status,
        attempts,
        crashes,
    )


@pytest.mark.parametrize(
    ("step", "attempts", "types"),
    [
        ("claim", 2, {"restarted"}),
        ("checkpoint", 1, {"started"}),
        ("settle", 1, {"started"}),
    ],
)
async def test_an_answer_survives_a_lost_commit_reply_of_its_worker(
    running: Installation, step: str, attempts: int, types: set[str]
) -> None:
    trap = lose_reply_to_commit(running.worker_link, step)
    async with Client(running.system.web.url, running.key) as client:
        sent = await client.send(f"/demo {PACED}\n{step}")
        async with reading(client, sent) as seen:
            pass
        outcome = await outcome_of(running.system, client, sent, seen)

    check(outcome, step, trap, attempts=attempts, crashes=attempts - 1)
    assert outcome.types & {"started", "resumed", "restarted", "snapshot"} == types


async def test_an_answer_survives_a_lost_commit_reply_of_a_handover(running: Installation) -> None:
    trap = lose_reply_to_commit(running.worker_link, "hand_over")
    async with Client(running.system.web.url, running.key) as client:
        sent = await client.send("/demo tokens=500 rate=100\nhand over")
        async with reading(client, sent) as seen:
            await some_tokens(seen)
            running.start_worker()
            assert await asyncio.to_thread(running.system.worker.stop) == 0
        outcome = await outcome_of(running.system, client, sent, seen)

    check(outcome, "hand_over", trap, attempts=2)
    assert outcome.types & {"started", "resumed", "restarted", "snapshot"} == {"started", "resumed"}


async def test_a_message_whose_commit_reply_was_lost_can_be_retried(running: Installation) -> None:
    trap = lose_reply_to_commit(running.web_link, "write_turn")
    question: dict[str, Any] = {
        "json": {"text": f"/demo {PACED}\nsent twice"},
        "headers": {"Idempotency-Key": "sent twice"},
    }
    async with Client(
        running.system.web.url,
        await asyncio.to_thread(running.system.new_key, "own", "retries@example.org"),
    ) as client:
        first = await client.http.post("/api/messages", **question)
        again = await client.http.post("/api/messages", **question)
        assert (first.status_code, again.status_code, again.headers["Idempotent-Replayed"]) == (
            503,
            202,
            "true",
        )
        async with reading(client, again.json()) as seen:
            pass
        outcome = await outcome_of(running.system, client, again.json(), seen)
        conversations = (await client.get("/api/conversations"))["data"]
        messages = (
            await client.get(f"/api/conversations/{again.json()['conversation_id']}/messages")
        )["data"]

    check(outcome, "write_turn", trap)
    assert (len(conversations), len(messages)) == (1, 2)


async def test_a_cancellation_survives_a_lost_commit_reply(running: Installation) -> None:
    trap = lose_reply_to_commit(running.web_link, "request_cancel")
    async with Client(running.system.web.url, running.key) as client:
        sent = await client.send("/demo tokens=5000 rate=100\nstop")
        async with reading(client, sent) as seen:
            await some_tokens(seen)
            first = await client.http.post(f"/api/generations/{sent['generation_id']}/cancel")
            assert first.status_code == 503
        outcome = await outcome_of(running.system, client, sent, seen)
        assert await client.cancel(sent["generation_id"]) == outcome.snapshot

    check(outcome, "request_cancel", trap, status="cancelled")


@pytest.mark.parametrize(("step", "attempts"), [("claim", 2), ("settle", 1)])
async def test_settling_by_a_web_process_survives_a_lost_commit_reply(
    running: Installation, step: str, attempts: int
) -> None:
    trap = lose_reply_to_commit(running.web_link, step)
    await asyncio.to_thread(running.system.worker.stop)
    async with Client(running.system.web.url, running.key) as client:
        sent = await client.send(f"/demo {PACED}\nqueued, {step}")
        async with reading(client, sent) as seen:
            await condition(lambda: all(seen))
            await client.http.post(f"/api/generations/{sent['generation_id']}/cancel")
        running.start_worker()
        outcome = await outcome_of(running.system, client, sent, seen)

    check(
        outcome,
        f"{step} of a settler",
        trap,
        status="cancelled",
        attempts=attempts,
        crashes=attempts - 1,
    )
