"""Web processes are killed after a commit or while they settle answers; jobs are lost."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.client import Client, Event
from tests.databases import Sql, both_databases
from tests.deaths import begin, death_of, waiting_web, waiting_worker
from tests.outcome import Outcome, outcome_of
from tests.readers import some_tokens
from tests.system import Process, System
from tests.waiting import condition

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), both_databases]

READERS = 3
PACED, LONG = "tokens=200 rate=100", "tokens=5000 rate=100"
SETTLER = ["die after 1 claim", "die before 1 settle", "die after 1 settle"]
COMMITTED, JOB_LOST = "die after 1 write_turn", "job lost"


@pytest.fixture(scope="module")
def outcomes(sql: Sql, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The outcome of one answer per case, all in one installation."""
    system = System(tmp_path_factory.mktemp("webs"), sql.settings() | {"worker": {"drain_s": 0}})
    try:
        system.start()
        return asyncio.run(Scenario(system, system.new_key()).run())
    finally:
        system.close()


class Scenario:
    """One installation in which several web processes die, one after the other.

    Readers reconnect to the running web process.
    """

    def __init__(self, system: System, key: str) -> None:
        self.system, self.key = system, key
        self.urls: list[str] = []
        self.sent: dict[str, dict[str, Any]] = {}
        self.seen: dict[str, list[list[Event]]] = {}
        self.dying: dict[str, Process] = {}

    async def run(self) -> dict[str, Outcome]:
        system = self.system
        self.urls.append(system.web.url)
        self.dying = {fault: waiting_web(system, fault) for fault in (*SETTLER, COMMITTED)}
        last_web, last_worker = waiting_web(system), waiting_worker(system)
        async with asyncio.TaskGroup() as tasks:
            async with Client(system.web.url, self.key) as client:
                for case in SETTLER:
                    self.follow(case, await client.send(f"/demo {LONG}\n{case}"), tasks)
                await some_tokens([events for each in self.seen.values() for events in each], 5)
            # The worker hands over its answers, which then have no owner.
            await asyncio.to_thread(system.worker.stop)
            await asyncio.to_thread(system.web.kill)
            for case in SETTLER:
                await self.die_during(
                    case, "POST", f"/api/generations/{self.sent[case]['generation_id']}/cancel"
                )
            question = {
                "headers": {"Idempotency-Key": "once"},
                "json": {"text": f"/demo {PACED}\n{COMMITTED}"},
            }
            await self.die_during(COMMITTED, "POST", "/api/messages", **question)

            await begin(system, last_web)
            self.urls[:] = [last_web.url]
            async with Client(last_web.url, self.key) as client:
                again = await client.http.post("/api/messages", **question)
                assert (again.status_code, again.headers["Idempotent-Replayed"]) == (202, "true"), (
                    again.text
                )
                self.follow(COMMITTED, again.json(), tasks)
                self.follow(JOB_LOST, await client.send(f"/demo {PACED}\n{JOB_LOST}"), tasks)
                assert system.redis().delete("tidemark:jobs:answers") == 1
                await condition(
                    lambda: all(
                        events[-1].type == "cancelled"
                        for case in SETTLER
                        for events in self.seen[case]
                    )
                )
                await begin(system, last_worker)  # only now, so that the web processes settle
        async with Client(last_web.url, self.key) as client:
            return {
                case: await outcome_of(system, client, self.sent[case], self.seen[case])
                for case in self.sent
            }

    def follow(self, case: str, sent: dict[str, Any], tasks: asyncio.TaskGroup) -> None:
        self.sent[case], self.seen[case] = sent, [[] for _ in range(READERS)]
        for events in self.seen[case]:
            tasks.create_task(self.read(sent["generation_id"], events))

    async def read(self, generation_id: str, events: list[Event]) -> None:
        async with Client(self.urls[0], self.key) as client:
            await client.read_through(generation_id, events, self.urls)

    async def die_during(self, fault: str, *request: Any, **options: Any) -> None:
        """Let a web process die during a request, whose client gets no response."""
        dying = self.dying[fault]
        await begin(self.system, dying, fault)
        self.urls[:] = [dying.url]
        async with Client(dying.url, self.key) as client:
            with pytest.raises(httpx.TransportError):
                await client.http.request(*request, **options)
        await death_of(dying)


@pytest.mark.parametrize("point", SETTLER)
def test_a_cancelled_answer_survives_the_death_of_the_settling_web_process(
    point: str, outcomes: dict[str, Outcome], sql: Sql
) -> None:
    outcome = outcomes[point]
    outcome.note(f"settler: {point}", sql.name)

    outcome.check()
    assert outcome.row.status == "cancelled"
    assert outcome.snapshot["text"]
    assert outcome.types & {"resumed", "restarted", "snapshot"} == set()
    assert (outcome.row.attempt, outcome.row.crashes) == (
        (2, 0) if point == "die after 1 settle" else (3, 1)
    )


@pytest.mark.parametrize("case", [COMMITTED, JOB_LOST])
def test_a_committed_message_is_answered_even_if_its_job_is_lost(
    case: str, outcomes: dict[str, Outcome], sql: Sql
) -> None:
    outcome = outcomes[case]
    outcome.note(f"web: {case}", sql.name)

    outcome.check()
    assert outcome.row.status == "completed"
    assert (outcome.row.attempt, outcome.row.crashes) == (1, 0)
    assert outcome.types & {"resumed", "restarted", "snapshot"} == set()
