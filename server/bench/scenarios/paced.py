"""Paced: the cost and delay of tokens at the rate of a real model."""

from collections import Counter
from typing import Final

from server.bench.load import load
from server.bench.options import Options
from server.bench.report import Figure, Meter, Report, percentile
from server.bench.script import Script
from server.bench.system import system

_STREAMS: Final = 100
_RATE_PER_S: Final = 50.0
_DURATION_S: Final = 10
_SPREAD_S: Final = 1.0
_WARM_UP: Final = Script(tokens=50, rate=0)
_DEADLINE_S: Final = 60.0


async def measure(options: Options) -> Report:
    """The streams begin within a second. Costs are of complete answers, from POST to settling."""
    options.reject("url", "readers")
    streams, rate = options.streams or _STREAMS, options.rate or _RATE_PER_S
    script = Script(tokens=max(1, int(rate * _DURATION_S)), rate=rate)
    report = Report("paced", {"streams": streams, "tokens": script.tokens, "rate": rate})
    async with system(options.database) as tested, load(tested.folder, tested.server) as clients:
        await clients.post(_WARM_UP, streams=streams, deadline_s=_DEADLINE_S)
        report.faults += (await clients.ended()).faults()
        meter = Meter(
            "from the first POST to the last end", tested.cpu_s, lambda: {"load": clients.cpu_s()}
        )
        before = await tested.redis_commands()
        await clients.post(script, streams=streams, deadline_s=_DEADLINE_S, spread_s=_SPREAD_S)
        results = await clients.ended()
        costs = meter.spent(results.tokens)
        calls = Counter(await tested.redis_commands())
        calls.subtract(before)
    report.faults += results.faults()
    report.add_costs(costs)
    delays_ms = [delay_us / 1000 for delay_us in results.delays_us]
    return report.add(
        Figure("CPU per token", costs.us_per_token(costs.server_s), "µs", at_most=150),
        Figure("extra delay p50", percentile(delays_ms, 50), "ms"),
        Figure("extra delay p99", percentile(delays_ms, 99), "ms", at_most=30),
        Figure("extra delay, worst", max(delays_ms, default=float("nan")), "ms"),
        Figure(
            "Redis commands per token, with those of scripts", calls.total() / results.tokens, ""
        ),
        Figure("  script calls per token", calls["evalsha"] / results.tokens, ""),
        Figure("tokens delivered", results.tokens, ""),
    )
