"""A web process that is stopped behind a load balancer."""

import asyncio
import signal
from collections.abc import Callable

import httpx
import pytest

from tests.client import Client, check_law
from tests.system import Process, System
from tests.waiting import condition

LONG_S = 600
ANSWER = "/demo tokens=40 rate=40"


def ready(web: Process) -> tuple[int, str]:
    answer = httpx.get(f"{web.url}/readyz", trust_env=False)
    return answer.status_code, answer.json().get("reason", "")


async def test_after_sigterm_a_web_process_is_not_ready_but_serves_on(
    new_system: Callable[..., System],
) -> None:
    system = new_system(server={"shutdown_delay_s": LONG_S}, worker={"drain_s": 1})
    await asyncio.to_thread(system.start)
    web = system.web
    async with Client(web.url, await asyncio.to_thread(system.new_key)) as client:
        before = await client.send(ANSWER)
        reading = asyncio.create_task(client.read(before["generation_id"]))

        web.popen.terminate()
        await condition(lambda: ready(web) == (503, "shutting down"))
        during = await client.send(ANSWER)
        response = await client.http.get("/api/models")
        for sent, events in (
            (before, await reading),
            (during, await client.read(during["generation_id"])),
        ):
            check_law(events, await client.snapshot(sent["generation_id"]))
            assert events[-1].type == "completed"

    assert response.headers["connection"] == "close"
    assert web.alive
    web.popen.terminate()
    assert web.popen.wait(30) == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_without_a_delay_a_signal_ends_a_web_process(
    number: signal.Signals, new_system: Callable[..., System]
) -> None:
    delay_s = LONG_S if number == signal.SIGINT else 0
    system = new_system(server={"shutdown_delay_s": delay_s})
    system.start(workers=0)

    system.web.popen.send_signal(number)

    assert system.processes[-1].popen.wait(30) == 0


@pytest.mark.slow
def test_the_delay_ends(new_system: Callable[..., System]) -> None:
    system = new_system(server={"shutdown_delay_s": 0.5})
    system.start(workers=0)

    assert system.web.stop() == 0
