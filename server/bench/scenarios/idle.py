"""Idle: the memory of silent streams, and the load of an idle worker."""

import asyncio
from typing import Any, Final

from server.bench.load import Load, load
from server.bench.options import Options
from server.bench.report import Figure, Meter, Report
from server.bench.script import Script
from server.bench.system import MODEL, System, system

_STREAMS: Final = 1_000
_WATCH_S: Final = 10.0
_SETTLE_S: Final = 7.0  # an answer is checkpointed for the first time after five
_SPREAD_S_PER_STREAM: Final = 0.01
_WARM_UP: Final = Script(tokens=20, rate=0)
_WARM_UP_STREAMS: Final = 50
_SILENT: Final = Script(tokens=100, stall_after=1)
_DEADLINE_S: Final = 300.0


async def measure(options: Options) -> Report:
    """The idle worker, then readers of one silent answer, then streams with one answer each."""
    options.reject("database", "url", "rate")
    streams, readers = options.streams or _STREAMS, options.readers or _STREAMS
    report = Report("idle", {"streams": streams, "readers": readers})
    async with system() as tested, load(tested.folder, tested.server) as clients:
        await _warm_up(clients, report)
        await tested.stop("web")
        await asyncio.sleep(_SETTLE_S)
        commands, meter = await tested.redis_commands(), Meter("an idle worker", tested.cpu_s)
        await asyncio.sleep(_WATCH_S)
        costs = meter.spent()
        per_s = {
            name: (calls - commands.get(name, 0)) / costs.wall_s
            for name, calls in (await tested.redis_commands()).items()
        }
        report.add_costs(costs)
        report.notes.append(
            "Redis commands/s of the idle worker: "
            + ", ".join(f"{n} {rate:.1f}" for n, rate in per_s.items() if rate > 0)
        )
        report.add(
            Figure("Redis commands of an idle worker", sum(per_s.values()), "/s", at_most=5),
            Figure(
                "CPU of an idle worker",
                100 * costs.cpu_s["worker"] / costs.wall_s,
                "%",
                at_most=0.5,
            ),
        )
        await tested.start("web")
        await tested.ready()

        sent = await tested.server.call(
            "POST", "/api/messages", {"text": str(_SILENT), "model": MODEL}
        )
        path = f"/api/generations/{sent['generation_id']}/events"
        one_answer = {"method": "GET", "path": path, "shared": True, "keys": tested.server.keys[:1]}
        report.add(
            await _memory_per_stream(
                tested, clients, report, name="readers of one answer", streams=readers, **one_answer
            )
        )
        await tested.restart_web()
        own_answers = {
            "method": "POST",
            "path": "/api/messages",
            "body": f'{{"text":"{_SILENT}","model":"{MODEL}"}}',
        }
        report.add(
            await _memory_per_stream(
                tested,
                clients,
                report,
                name="streams with an answer each",
                streams=streams,
                **own_answers,
            )
        )
    return report


async def _memory_per_stream(
    tested: System, clients: Load, report: Report, *, name: str, streams: int, **command: Any
) -> Figure:
    """The memory of a stream in the web process, and the CPU time of silent streams."""
    await _warm_up(clients, report)
    await asyncio.sleep(_SETTLE_S)
    web = tested.processes["web"]
    before_bytes = web.memory_bytes()
    await clients.open(
        streams=streams, deadline_s=_DEADLINE_S, spread_s=streams * _SPREAD_S_PER_STREAM, **command
    )
    await asyncio.sleep(_SETTLE_S)
    open_bytes = web.memory_bytes()
    meter = Meter(f"{streams} {name}, silent", tested.cpu_s, lambda: {"load": clients.cpu_s()})
    await asyncio.sleep(_WATCH_S)
    report.add_costs(meter.spent())
    results = await clients.close()
    refused = [stream for stream in results.streams if stream["status"] != 200]
    if refused:
        report.faults.append(
            f"{len(refused)} of {streams} {name} were rejected: "
            f"{refused[0].get('refusal') or refused[0]['status']}"
        )
    ended = [stream for stream in results.streams if stream["terminal"]]
    if ended:
        report.faults.append(
            f"{len(ended)} of {streams} {name} ended with {ended[0]['terminal']}, "
            "but should have stayed open."
        )
    silent = [
        stream for stream in results.streams if stream["tokens"] != 1 and stream["status"] == 200
    ]
    if silent:
        report.faults.append(f"{len(silent)} of {streams} {name} did not receive the only token.")
    return Figure(
        f"memory per stream, {name}", (open_bytes - before_bytes) / 1000 / streams, "KB", at_most=50
    )


async def _warm_up(clients: Load, report: Report) -> None:
    """Makes a new process import and allocate what every stream needs."""
    await clients.post(_WARM_UP, streams=_WARM_UP_STREAMS, deadline_s=_DEADLINE_S)
    report.faults += (await clients.ended()).faults()
