"""Start: the time from `up` in a new folder until it is ready, and to a first token."""

from typing import Final

import orjson

from server.bench.errors import MeasureError
from server.bench.options import Options
from server.bench.report import Costs, Figure, Report, percentile
from server.bench.up import up

_ROUNDS: Final = 3
_DEMO: Final = "/demo tokens=5 rate=0 first_token_ms=0"
_DEADLINE_S: Final = 60.0


async def measure(options: Options) -> Report:
    """One start to warm caches, then three, each in a new data folder."""
    options.reject("url", "streams", "rate", "readers")
    report = Report("start", {"rounds": _ROUNDS})
    serves_s: list[float] = []
    first_token_s: list[float] = []
    body = orjson.dumps({"text": _DEMO, "model": "demo"}).decode()
    for number in range(1 + _ROUNDS):
        async with up() as running:
            used_s = running.process.cpu_s()
            await running.reader.open(
                streams=1, deadline_s=_DEADLINE_S, method="POST", path="/api/messages", body=body
            )
            stream = (await running.reader.ended()).streams[0]
        if stream["status"] != 200 or stream["terminal"] != "completed":
            raise MeasureError(
                f"The first answer did not complete: {stream['status']} {stream['terminal']} "
                f"{stream.get('refusal', '')}"
            )
        if number:
            serves_s.append((running.ready_ns - running.started_ns) / 1e9)
            first_token_s.append((stream["first_token_ns"] - running.started_ns) / 1e9)
            report.add_costs(
                Costs(f"start {number}, until it is ready", serves_s[-1], {"up": used_s})
            )
    return report.add(
        Figure("up to /readyz, worst", max(serves_s), "s", at_most=3),
        Figure("up to /readyz, p50", percentile(serves_s, 50), "s"),
        Figure("up to the first token of an answer, p50", percentile(first_token_s, 50), "s"),
    )
