"""The scenarios by name. Each starts what it needs, measures it, ends it and returns a report."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Final

from server.bench import SCENARIOS
from server.bench.errors import UseError
from server.bench.options import Options
from server.bench.report import Report
from server.bench.scenarios import (
    burst,
    fan_out,
    first_token,
    flood,
    graphql,
    history,
    idle,
    paced,
    refusals,
    start,
    stop,
    takeover,
)

_MEASURES: Final[dict[str, Callable[[Options], Awaitable[Report]]]] = {
    "first-token": first_token.measure,
    "flood": flood.measure,
    "paced": paced.measure,
    "fan-out": fan_out.measure,
    "graphql": graphql.measure,
    "refusals": refusals.measure,
    "idle": idle.measure,
    "burst": burst.measure,
    "stop": stop.measure,
    "takeover": takeover.measure,
    "history": history.measure,
    "start": start.measure,
}
assert _MEASURES.keys() == SCENARIOS.keys()


def measure(scenario: str, options: Options) -> Report:
    """Runs one scenario. Raises UseError, MeasureError or KeyboardInterrupt."""
    if scenario not in _MEASURES:
        raise UseError(f"unknown scenario: expected one of {', '.join(_MEASURES)}.")
    report = asyncio.run(_guarded(_MEASURES[scenario](options)))
    if options != Options():
        report.notes.append("The targets only apply to the scenario's own sizes and processes.")
    return report


async def _guarded(measured: Awaitable[Report]) -> Report:
    """Handles SIGTERM like Ctrl-C, so that all processes are ended."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await measured
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
