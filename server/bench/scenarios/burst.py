"""Burst: many questions at once, until their 202 and until their first tokens."""

from typing import Final

from server.bench.load import load
from server.bench.options import Options
from server.bench.report import Figure, Meter, Report, percentile
from server.bench.script import Script
from server.bench.system import system

_QUESTIONS: Final = 200
_SCRIPT: Final = Script(tokens=100, rate=20)
_WARM_UP_QUESTIONS: Final = 10
_WARM_UP: Final = Script(tokens=5, rate=0)
_DEADLINE_S: Final = 120.0


async def measure(options: Options) -> Report:
    """Each question begins a conversation; its answer is read on the same connection."""
    options.reject("url", "rate", "readers")
    questions = options.streams or _QUESTIONS
    sizes = {"questions": questions, "tokens": _SCRIPT.tokens, "rate": _SCRIPT.rate}
    report = Report("burst", sizes)
    async with (
        system(options.database) as tested,
        load(tested.folder, tested.server) as clients,
    ):
        await clients.post(_WARM_UP, streams=_WARM_UP_QUESTIONS, deadline_s=_DEADLINE_S)
        report.faults += (await clients.ended()).faults()
        meter = Meter(
            "from the first POST to the last end", tested.cpu_s, lambda: {"load": clients.cpu_s()}
        )
        await clients.post(_SCRIPT, streams=questions, deadline_s=_DEADLINE_S)
        results = await clients.ended()
        report.add_costs(meter.spent(results.tokens))
    report.faults += results.faults()
    accepted_s, first_s = (
        [(stream[end] - stream["requested_ns"]) / 1e9 for stream in results.streams if stream[end]]
        for end in ("opened_ns", "first_token_ns")
    )
    return report.add(
        Figure("POST to its response headers p50", percentile(accepted_s, 50), "s"),
        Figure("POST to its response headers, worst", max(accepted_s), "s", at_most=3),
        Figure("POST to the first token p50", percentile(first_s, 50), "s"),
        Figure("POST to the first token, worst", max(first_s), "s"),
    )
