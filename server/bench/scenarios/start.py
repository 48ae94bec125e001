"""Start: the time from `up` in a new folder until it is ready, and to a first token."""

import asyncio
import sys
import time
from pathlib import Path
from typing import Final

import orjson

import server
from server.bench.errors import MeasureError
from server.bench.options import Options
from server.bench.report import Costs, Figure, Report, percentile
from server.bench.up import up
from server.bench.usage import pss_bytes

_ROUNDS: Final = 3
_DEMO: Final = "/demo tokens=5 rate=0 first_token_ms=0"
_DEADLINE_S: Final = 60.0
_ROOT: Final = Path(server.__file__).parent.parent
_IMPORT: Final = "import server.command.web, server.command.worker"


async def measure(options: Options) -> Report:
    """One start to warm caches, then three, each in a new data folder."""
    options.reject("database", "url", "streams", "rate", "readers")
    report = Report("start", {"rounds": _ROUNDS})
    serves_s: list[float] = []
    first_token_s: list[float] = []
    import_s: list[float] = []
    memory: dict[str, float] = {}
    body = orjson.dumps({"text": _DEMO, "model": "demo"}).decode()
    for number in range(1 + _ROUNDS):
        import_s.append(await _import_s())
        async with up() as running:
            used_s = running.process.cpu_s()
            await running.reader.open(
                streams=1, deadline_s=_DEADLINE_S, method="POST", path="/api/messages", body=body
            )
            stream = (await running.reader.ended()).streams[0]
            memory = {name: pss_bytes(running.child(name).pid) for name in ("web", "worker")}
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
    bare_s = percentile(import_s[1:], 50)
    report.add(
        Figure("import of what web and worker run, p50", bare_s, "s"),
        Figure("up to /readyz ÷ this import", percentile(serves_s, 50) / bare_s, "", at_most=1.4),
        *(Figure(f"PSS of the {name} process", size / 1e6, "MB") for name, size in memory.items()),
    )
    return report.add(
        Figure("up to /readyz, worst", max(serves_s), "s", at_most=3),
        Figure("up to /readyz, p50", percentile(serves_s, 50), "s"),
        Figure("up to the first token of an answer, p50", percentile(first_token_s, 50), "s"),
    )


async def _import_s() -> float:
    """Seconds that a Python process takes to import the program and end."""
    started_ns = time.monotonic_ns()
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _IMPORT, cwd=_ROOT)
    if await process.wait():
        raise MeasureError("The program cannot be imported.")
    return (time.monotonic_ns() - started_ns) / 1e9
