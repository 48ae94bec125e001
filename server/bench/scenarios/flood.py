"""Flood: the cost of a token when many answers are generated at full speed."""

from typing import Final

from server.bench.load import load
from server.bench.options import Options
from server.bench.report import Costs, Figure, Meter, Report
from server.bench.script import Script
from server.bench.system import system

_STREAMS: Final = 50
_SCRIPT: Final = Script(tokens=200, rate=0)
_ROUNDS: Final = 5
_DEADLINE_S: Final = 60.0


async def measure(options: Options) -> Report:
    """One round to warm up, then five measured ones."""
    options.reject("url", "rate", "readers")
    streams = options.streams or _STREAMS
    report = Report("flood", {"streams": streams, "tokens": _SCRIPT.tokens, "rounds": _ROUNDS})
    rounds: list[Costs] = []
    async with system(options.database) as tested, load(tested.folder, tested.server) as clients:
        meter: Meter | None = None
        for number in range(1 + _ROUNDS):
            if number == 1:
                meter = Meter("five rounds", tested.cpu_s, lambda: {"load": clients.cpu_s()})
            one = Meter(f"round {number}", tested.cpu_s)
            await clients.post(_SCRIPT, streams=streams, deadline_s=_DEADLINE_S)
            results = await clients.ended()
            report.faults += results.faults()
            if number:
                rounds.append(one.spent(results.tokens))
        assert meter is not None
        costs = meter.spent(sum(one.tokens for one in rounds))
    report.add_costs(costs)
    speeds = sorted(one.tokens / one.server_s for one in rounds)
    return report.add(
        Figure(
            "tokens per CPU second, all rounds",
            costs.tokens / costs.server_s,
            "tokens/s",
            at_least=15_000,
        ),
        Figure("  of the slowest round", speeds[0], "tokens/s"),
        Figure("  of the fastest round", speeds[-1], "tokens/s"),
        Figure(
            "tokens per second of wall time",
            costs.tokens / sum(one.wall_s for one in rounds),
            "tokens/s",
        ),
        Figure("CPU per answer", costs.server_s * 1e3 / (streams * _ROUNDS), "ms"),
    )
