"""Processes that wait for a start signal and may die at a given step (see tests/dying.py)."""

import asyncio
import signal
from pathlib import Path

from tests.system import Process, System
from tests.waiting import condition

DYING = "tests.dying"
NO_FAULT = "none"


def waiting_worker(system: System, fault: str = NO_FAULT) -> Process:
    """A worker that has imported everything and waits for `begin`."""
    return system.start_worker(
        module=DYING, FAULT=fault, FAULT_START=_start_of(system, "worker", fault)
    )


def waiting_web(system: System, fault: str = NO_FAULT) -> Process:
    """A web process that waits for `begin`."""
    return system.start_web(
        wait=False, module=DYING, FAULT=fault, FAULT_START=_start_of(system, "web", fault)
    )


async def begin(system: System, process: Process, fault: str = NO_FAULT) -> None:
    """Let a waiting process start; a web process is ready when this returns."""
    await asyncio.to_thread(Path(_start_of(system, process.name, fault)).touch)
    if process.url:
        await asyncio.to_thread(system.wait_ready, process)


async def death_of(process: Process) -> None:
    """Wait until a process has killed itself; fail if it ended in any other way."""
    await condition(lambda: not process.alive, 60)
    assert process.popen.returncode == -signal.SIGKILL, process.output()


def _start_of(system: System, name: str, fault: str) -> str:
    return str(system.folder / f"{name} {fault}".replace(" ", "-"))
