"""GraphQL: the cost of events over WebSocket and natively, and the memory of a subscription."""

import asyncio
import time
from typing import Any, Final

from server.bench.load import Load, load
from server.bench.options import Options
from server.bench.report import Costs, Figure, Meter, Report
from server.bench.script import Script
from server.bench.sockets import SUBSCRIPTION
from server.bench.system import MODEL, System, system

_SUBSCRIBERS: Final = 200
_OPEN: Final = 1_000
_RATE_PER_S: Final = 50.0
_DURATION_S: Final = 10
_GATHER_MS: Final = 3_000
_GATHER_MS_PER_READER: Final = 30
_LEAD_S: Final = 0.1
_SETTLE_S: Final = 3.0
_WARM_UP: Final = Script(tokens=50, rate=0)
_SILENT: Final = Script(tokens=100, stall_after=1)
_DEADLINE_S: Final = 300.0
_SPREAD_S_PER_STREAM: Final = 0.01


async def measure(options: Options) -> Report:
    """An answer to native readers, one to as many subscribers, and then idle subscriptions."""
    options.reject("database", "url")
    readers, rate, streams = (
        options.readers or _SUBSCRIBERS,
        options.rate or _RATE_PER_S,
        options.streams or _OPEN,
    )
    report = Report("graphql", {"subscribers": readers, "rate": rate, "open": streams})
    async with system(accounts=1) as tested, load(tested.folder, tested.server) as clients:
        await clients.post(_WARM_UP, streams=10, deadline_s=_DEADLINE_S)
        report.faults += (await clients.ended()).faults()
        await _fan_out(
            tested, clients, report, readers=2, rate=rate, subscribing=True, warming=True
        )
        native = await _fan_out(
            tested, clients, report, readers=readers, rate=rate, subscribing=False
        )
        subscribed = await _fan_out(
            tested, clients, report, readers=readers, rate=rate, subscribing=True
        )
        each = [costs.us_per_token(costs.cpu_s["web"]) for costs in (native, subscribed)]
        report.add(
            Figure("CPU of the web process per delivery, native", each[0], "µs"),
            Figure("  over WebSocket", each[1], "µs"),
            Figure("  ratio", each[1] / each[0] if each[0] else float("nan"), "", at_most=2),
            await _memory(tested, clients, report, streams),
        )
    return report


async def _fan_out(
    tested: System,
    clients: Load,
    report: Report,
    *,
    readers: int,
    rate: float,
    subscribing: bool,
    warming: bool = False,
) -> Costs:
    """The costs of an answer that all of them read, from just before its first token."""
    gather_ms = _GATHER_MS + _GATHER_MS_PER_READER * readers
    script = Script(
        tokens=max(1, int(rate * (1 if warming else _DURATION_S))),
        rate=rate,
        first_token_ms=gather_ms,
    )
    sent = await tested.server.call("POST", "/api/messages", {"text": str(script), "model": MODEL})
    first_token_s = time.monotonic() + gather_ms / 1000
    command: dict[str, Any] = {
        "streams": readers,
        "deadline_s": gather_ms / 1000 + 4 * _DURATION_S,
        "tokens": script.tokens,
        "shared": True,
    }
    await clients.open(**command, **_request(sent["generation_id"], subscribing=subscribing))
    await asyncio.sleep(max(0.0, first_token_s - _LEAD_S - time.monotonic()))
    name = "subscribers" if subscribing else "native readers"
    meter = Meter(
        f"one answer to {readers} {name}", tested.cpu_s, lambda: {"load": clients.cpu_s()}
    )
    results = await clients.ended()
    costs = meter.spent(results.tokens)
    report.faults += results.faults()
    if not warming:
        report.add_costs(costs)
    return costs


async def _memory(tested: System, clients: Load, report: Report, streams: int) -> Figure:
    """The memory of an open subscription to a silent answer."""
    await tested.restart_web()
    sent = await tested.server.call("POST", "/api/messages", {"text": str(_SILENT), "model": MODEL})
    command = _request(sent["generation_id"], subscribing=True) | {
        "shared": True,
        "deadline_s": _DEADLINE_S,
    }
    await clients.open(streams=50, **command)
    await clients.close()
    await asyncio.sleep(_SETTLE_S)
    before_bytes = tested.processes["web"].memory_bytes()
    opening = Meter(
        f"{streams} subscriptions opened", tested.cpu_s, lambda: {"load": clients.cpu_s()}
    )
    await clients.open(streams=streams, spread_s=streams * _SPREAD_S_PER_STREAM, **command)
    costs = opening.spent()
    report.add_costs(costs)
    report.add(
        Figure(
            "CPU of the web process per subscription opened",
            costs.cpu_s["web"] * 1000 / streams,
            "ms",
        )
    )
    await asyncio.sleep(_SETTLE_S)
    held_bytes = tested.processes["web"].memory_bytes() - before_bytes
    results = await clients.close()
    refused = [stream for stream in results.streams if stream["status"] != 200]
    if refused:
        report.faults.append(
            f"{len(refused)} of {streams} subscriptions were rejected: "
            f"{refused[0].get('refusal') or refused[0]['status']}"
        )
    return Figure("memory per open subscription", held_bytes / 1000 / streams, "KB", at_most=100)


def _request(generation_id: str, *, subscribing: bool) -> dict[str, Any]:
    if subscribing:
        return {"subscription": {"query": SUBSCRIPTION, "variables": {"id": generation_id}}}
    return {"method": "GET", "path": f"/api/generations/{generation_id}/events"}
