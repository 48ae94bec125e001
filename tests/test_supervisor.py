"""The supervisor: its processes are forks of one that has imported everything, and are replaced when they die."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from server.command.supervisor import Child, Run, Supervisor
from tests.client import Client
from tests.readers import check_all, reading, some_tokens, types_of
from tests.system import System, children_of
from tests.waiting import POLL_S, until

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="process names and descriptors are read from /proc"
)

ENDED_WITHIN_S = 30


async def test_workers_under_a_supervisor_continue_the_answer_of_one_that_dies(
    new_system: Callable[..., System],
) -> None:
    system = new_system().start(workers=0)
    supervisor = system.start_supervised("worker", 2)
    async with Client(system.web.url, system.new_key()) as client:
        sent = await client.send("/demo tokens=300 rate=100")
        async with reading(client, sent) as seen:
            await some_tokens(seen)
            for worker in children_of(supervisor, "worker"):
                worker.kill()
        await check_all(client, sent, seen)

    assert "resumed" in types_of(seen[0])
    assert system.row(sent["generation_id"]).crashes == 1
    until(lambda: len(children_of(supervisor, "worker")) == 2, "two workers again")
    assert supervisor.stop(ENDED_WITHIN_S) == 0


@pytest.mark.slow
async def test_web_processes_under_a_supervisor_share_a_port_and_are_replaced(
    new_system: Callable[..., System],
) -> None:
    system = new_system().start()
    supervisor = system.start_supervised("web", 2)
    system.wait_ready(supervisor)
    first, second = children_of(supervisor, "web")
    async with Client(supervisor.url, system.new_key()) as client:
        sent = await client.send("/demo tokens=300 rate=100")
        async with reading(client, sent, readers=8) as seen:
            await some_tokens(seen)
            first.kill()
            second.kill()
        await check_all(client, sent, seen)

    until(lambda: len(children_of(supervisor, "web")) == 2, "two web processes again")
    children = psutil.Process(supervisor.pid).children()
    assert supervisor.stop(ENDED_WITHIN_S) == 0
    assert not psutil.wait_procs(children, ENDED_WITHIN_S)[1]


def test_when_a_supervisor_is_killed_its_processes_end(new_system: Callable[..., System]) -> None:
    system = new_system().start(webs=0, workers=0)
    supervisor = system.start_supervised("worker", 2)
    children = psutil.Process(supervisor.pid).children()

    supervisor.kill()

    assert not psutil.wait_procs(children, ENDED_WITHIN_S)[1]


def test_a_supervisor_has_no_threads_and_no_connections(new_system: Callable[..., System]) -> None:
    """A fork copies neither: locks would stay locked, and connections would be used twice."""
    system = new_system().start(webs=0, workers=0)
    supervisor = psutil.Process(system.start_supervised("worker", 2).pid)

    assert supervisor.num_threads() == 1
    assert not supervisor.net_connections("all")
    assert not [file for file in supervisor.open_files() if file.fd > 2]


def test_the_processes_share_the_memory_of_what_was_imported(
    new_system: Callable[..., System],
) -> None:
    system = new_system().start(webs=0, workers=0)
    supervisor = system.start_supervised("worker", 2)
    for worker in children_of(supervisor, "worker"):
        memory = worker.memory_full_info()
        assert memory.pss < 0.75 * memory.rss


# The supervisor by itself, in a process of its own


def supervise(*children: Child, **options: Callable[[], None]) -> int:
    """The exit code of a supervisor that runs in a process of its own, until it ends by itself."""
    pid = os.fork()
    if not pid:
        code = 70
        try:
            code = Supervisor(list(children), end_within_s=5).run(**options)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def sleep() -> None:
    signal.pause()


def fail() -> None:
    sys.exit(3)


def child(name: str, main: Callable[[], None], *, base: bool = False) -> Child:
    return Child(name, lambda: Run(main), base=base)


@pytest.mark.quick
def test_everything_ends_when_a_process_cannot_start() -> None:
    assert supervise(child("sleeper", sleep), child("failing", fail)) == 1


@pytest.mark.quick
def test_nothing_but_the_base_starts_when_the_preparation_fails(tmp_path: Path) -> None:
    started = tmp_path / "started"

    code = supervise(child("base", sleep, base=True), child("other", started.touch), prepare=fail)

    assert code == 1
    assert not started.exists()


@pytest.mark.quick
def test_processes_start_after_the_preparation(tmp_path: Path) -> None:
    prepared, found = tmp_path / "prepared", tmp_path / "found"

    def look() -> None:
        found.write_text(str(prepared.exists()))
        fail()

    assert supervise(child("other", look), prepare=prepared.touch) == 1
    assert found.read_text() == "True"


@pytest.mark.quick
def test_a_process_that_dies_is_replaced_and_its_recovery_runs(tmp_path: Path) -> None:
    lives, recovered = tmp_path / "lives", tmp_path / "recovered"

    def main() -> None:
        with lives.open("a") as file:
            file.write("x")
        if lives.stat().st_size < 3:
            os.kill(os.getpid(), signal.SIGKILL)
        os.kill(os.getppid(), signal.SIGTERM)
        sleep()

    dying = Child("dying", lambda: Run(main, lambda: recovered.open("a").write("x") and None))

    assert supervise(dying) == 0
    assert lives.read_text() == "xxx"
    assert recovered.read_text() == "xx"


@pytest.mark.quick
def test_an_interrupt_during_the_preparation_is_no_failure() -> None:
    def prepare() -> None:
        os.kill(os.getppid(), signal.SIGTERM)
        sleep()

    assert supervise(child("base", sleep, base=True), prepare=prepare) == 0


@pytest.mark.quick
def test_the_base_ends_last(tmp_path: Path) -> None:
    ends = tmp_path / "ends"

    def waiting(name: str) -> Callable[[], None]:
        def main() -> None:
            stopped: list[int] = []
            signal.signal(signal.SIGTERM, lambda number, _frame: stopped.append(number))
            if name == "other":
                os.kill(os.getppid(), signal.SIGTERM)
            while not stopped:
                time.sleep(POLL_S)
            with ends.open("a") as file:
                file.write(f"{name} ")

        return main

    supervise(child("base", waiting("base"), base=True), child("other", waiting("other")))

    assert ends.read_text() == "other base "


@pytest.mark.quick
def test_a_process_that_does_not_end_is_killed_at_the_second_interrupt() -> None:
    def stubborn() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        supervisor = os.getppid()
        os.kill(supervisor, signal.SIGINT)
        os.kill(supervisor, signal.SIGTERM)  # two of the same number could arrive as one
        while True:
            signal.pause()

    assert supervise(child("stubborn", stubborn)) == 0
