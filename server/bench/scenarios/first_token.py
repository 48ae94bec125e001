"""First token: the wait for the first token without the model's own time, idle and under load."""

import asyncio
from contextlib import AsyncExitStack
from typing import Final, NamedTuple

import orjson

from server.bench.load import Load, Results, load
from server.bench.options import Options
from server.bench.processes import temporary_folder
from server.bench.report import Figure, Meter, Report, percentile
from server.bench.script import Script
from server.bench.service import connected
from server.bench.system import MODEL, system

_ROUNDS: Final = 200
_BUSY_ROUNDS: Final = 100
_WARM_UP_ROUNDS: Final = 20
_BUSY_STREAMS: Final = 20
_RATE_PER_S: Final = 50.0
_BUSY_S: Final = 60.0
_SCRIPT: Final = Script(tokens=5, rate=0)
_DEMO: Final = "/demo tokens=5 rate=0 first_token_ms=0"
_DEADLINE_S: Final = 30.0
_SETTLE_S: Final = 2.0


async def measure(options: Options) -> Report:
    """Request streams one after the other, on an idle server and then on a busy one.

    Each has a connection of its own, which is open before the clock starts.
    """
    options.reject("readers")
    if options.url is not None:
        return await _measure_running(options)
    streams, rate = options.streams or _BUSY_STREAMS, options.rate or _RATE_PER_S
    report = Report("first-token", {"rounds": _ROUNDS, "other streams": streams, "rate": rate})
    async with AsyncExitStack() as stack:
        tested = await stack.enter_async_context(system(options.database))
        client = await stack.enter_async_context(load(tested.folder, tested.server))
        others = await stack.enter_async_context(load(tested.folder, tested.server, "others"))
        await _rounds(client, _WARM_UP_ROUNDS, report)

        meter = Meter("idle", tested.cpu_s, lambda: {"load": client.cpu_s()})
        idle = await _rounds(client, _ROUNDS, report)
        report.add_costs(meter.spent())

        script = Script(tokens=int(rate * _BUSY_S), rate=rate)
        await others.post(script, streams=streams, deadline_s=2 * _BUSY_S, spread_s=1.0)
        await asyncio.sleep(_SETTLE_S)
        meter = Meter(
            f"with {streams} other streams",
            tested.cpu_s,
            lambda: {"load": client.cpu_s() + others.cpu_s()},
        )
        busy = await _rounds(client, _BUSY_ROUNDS, report)
        report.add_costs(meter.spent())
        results = await others.close()
    failed = [s for s in results.streams if s["status"] != 200 or not s["in_order"]]
    if failed:
        report.faults.append(f"{len(failed)} of the {streams} other streams failed.")
    return report.add(
        *_first_token_figures(idle),
        _median("  POST to the upstream's request p50", [wait.asked_ms for wait in idle]),
        _median("  token sent to token received p50", [wait.carried_ms for wait in idle]),
        _median(f"with {streams} other streams p50", [wait.total_ms for wait in busy]),
        Figure(
            f"with {streams} other streams p95",
            percentile([wait.total_ms for wait in busy], 95),
            "ms",
        ),
    )


async def _measure_running(options: Options) -> Report:
    """The same on a running server, with its built-in model and no delay of its own."""
    options.reject("streams", "rate", "database")
    host, port = options.address()
    report = Report("first-token", {"url": options.url, "rounds": _ROUNDS, "model": "demo"})
    async with (
        temporary_folder() as folder,
        connected(host, port, [options.key()]) as server,
        load(folder, server) as client,
    ):
        body = orjson.dumps({"text": _DEMO, "model": "demo"}).decode()
        await _rounds(client, _WARM_UP_ROUNDS, report, body)
        idle = await _rounds(client, _ROUNDS, report, body)
    return report.add(*_first_token_figures(idle))


class Wait(NamedTuple):
    """The wait for one first token, in milliseconds, and its parts.

    `total_ms` is without the upstream's own time.
    """

    total_ms: float
    headers_ms: float
    asked_ms: float
    carried_ms: float


def _first_token_figures(idle: list[Wait]) -> list[Figure]:
    totals_ms = [wait.total_ms for wait in idle]
    return [
        Figure("first token p50", percentile(totals_ms, 50), "ms", at_most=8),
        Figure("first token p95", percentile(totals_ms, 95), "ms", at_most=20),
        _median("  POST to its response headers p50", [wait.headers_ms for wait in idle]),
    ]


def _median(name: str, values_ms: list[float]) -> Figure:
    return Figure(name, percentile(values_ms, 50), "ms")


async def _rounds(client: Load, rounds: int, report: Report, body: str = "") -> list[Wait]:
    """The wait for the first token in each round."""
    stamped = not body
    body = body or orjson.dumps({"text": str(_SCRIPT), "model": MODEL}).decode()
    waits = []
    for _ in range(rounds):
        await client.open(
            streams=1,
            deadline_s=_DEADLINE_S,
            method="POST",
            path="/api/messages",
            body=body,
            tokens=_SCRIPT.tokens,
        )
        results = await client.ended()
        report.faults += results.faults(stamped=stamped)
        if report.faults:
            break
        waits.append(_wait(results))
    return waits


def _wait(results: Results) -> Wait:
    stream = results.streams[0]
    requested_ns, sent_ns, received_ns = (
        stream["requested_ns"],
        stream["first_sent_ns"],
        stream["received_ns"],
    )
    return Wait(
        total_ms=(stream["first_token_ns"] - requested_ns - (sent_ns - received_ns)) / 1e6,
        headers_ms=(stream["opened_ns"] - requested_ns) / 1e6,
        asked_ms=(received_ns - requested_ns) / 1e6,
        carried_ms=(stream["first_token_ns"] - sent_ns) / 1e6,
    )
