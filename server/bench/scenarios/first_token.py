"""First token: how long one waits for the first word, less what the model itself took; alone and beside others."""

import asyncio
from contextlib import AsyncExitStack
from typing import Final, NamedTuple

import orjson

from server.bench.load import Load, Seen, load
from server.bench.options import Options
from server.bench.processes import temporary_folder
from server.bench.report import Figure, Meter, Report, percentile
from server.bench.script import Script
from server.bench.service import connected
from server.bench.system import MODEL, system

_ROUNDS: Final = 200
_ROUNDS_BESIDE: Final = 100
_WARM_UP_ROUNDS: Final = 20
_STREAMS_BESIDE: Final = 20
_RATE_PER_S: Final = 50.0
_BESIDE_S: Final = 60.0
_SCRIPT: Final = Script(tokens=5, rate=0)
_DEMO: Final = "/demo tokens=5 rate=0 first_token_ms=0"
_DEADLINE_S: Final = 30.0
_SETTLE_S: Final = 2.0


async def measure(options: Options) -> Report:
    """POST with `Accept: text/event-stream`, one after the other, on a connection of its own that is open before the clock starts."""
    options.refuse("readers")
    if options.url is not None:
        return await _measure_running(options)
    streams, rate = options.streams or _STREAMS_BESIDE, options.rate or _RATE_PER_S
    report = Report("first-token", {"rounds": _ROUNDS, "streams beside": streams, "rate": rate})
    async with AsyncExitStack() as stack:
        tested = await stack.enter_async_context(system())
        one = await stack.enter_async_context(load(tested.folder, tested.server))
        crowd = await stack.enter_async_context(load(tested.folder, tested.server, "crowd"))
        await _rounds(one, _WARM_UP_ROUNDS, report)

        meter = Meter("alone", tested.cpu_s, lambda: {"load": one.cpu_s()})
        alone = await _rounds(one, _ROUNDS, report)
        report.spend(meter.spent())

        script = Script(tokens=int(rate * _BESIDE_S), rate=rate)
        await crowd.post(script, streams=streams, deadline_s=2 * _BESIDE_S, spread_s=1.0)
        await asyncio.sleep(_SETTLE_S)
        meter = Meter(
            f"beside {streams} streams", tested.cpu_s, lambda: {"load": one.cpu_s() + crowd.cpu_s()}
        )
        beside = await _rounds(one, _ROUNDS_BESIDE, report)
        report.spend(meter.spent())
        broken = [
            stream
            for stream in (await crowd.close()).streams
            if stream["status"] != 200 or not stream["in_order"]
        ]
        if broken:
            report.faults.append(f"{len(broken)} of {streams} streams beside failed.")
    return report.add(
        Figure(
            "first token p50", percentile([wait.total_ms for wait in alone], 50), "ms", at_most=8
        ),
        Figure(
            "first token p95", percentile([wait.total_ms for wait in alone], 95), "ms", at_most=20
        ),
        Figure(
            "  POST to its own headers p50",
            percentile([wait.headers_ms for wait in alone], 50),
            "ms",
        ),
        Figure(
            "  POST to the upstream asked p50",
            percentile([wait.asked_ms for wait in alone], 50),
            "ms",
        ),
        Figure(
            "  token sent to token read p50",
            percentile([wait.carried_ms for wait in alone], 50),
            "ms",
        ),
        Figure(
            f"beside {streams} streams p50",
            percentile([wait.total_ms for wait in beside], 50),
            "ms",
        ),
        Figure(
            f"beside {streams} streams p95",
            percentile([wait.total_ms for wait in beside], 95),
            "ms",
        ),
    )


async def _measure_running(options: Options) -> Report:
    """The same against a running server and its built-in model, which is asked to take no time of its own."""
    options.refuse("streams", "rate")
    host, port = options.address()
    report = Report("first-token", {"url": options.url, "rounds": _ROUNDS, "model": "demo"})
    async with (
        temporary_folder() as folder,
        connected(host, port, [options.key()]) as server,
        load(folder, server) as one,
    ):
        body = orjson.dumps({"text": _DEMO, "model": "demo"}).decode()
        await _rounds(one, _WARM_UP_ROUNDS, report, body)
        alone = await _rounds(one, _ROUNDS, report, body)
    return report.add(
        Figure(
            "first token p50", percentile([wait.total_ms for wait in alone], 50), "ms", at_most=8
        ),
        Figure(
            "first token p95", percentile([wait.total_ms for wait in alone], 95), "ms", at_most=20
        ),
        Figure(
            "  POST to its own headers p50",
            percentile([wait.headers_ms for wait in alone], 50),
            "ms",
        ),
    )


class Wait(NamedTuple):
    """One first token, in milliseconds: all but the upstream's own, and the stretches of the way."""

    total_ms: float
    headers_ms: float
    asked_ms: float
    carried_ms: float


async def _rounds(one: Load, rounds: int, report: Report, body: str = "") -> list[Wait]:
    """The wait for the first token in each round."""
    stamped = not body
    body = body or orjson.dumps({"text": str(_SCRIPT), "model": MODEL}).decode()
    waits = []
    for _ in range(rounds):
        await one.open(
            streams=1,
            deadline_s=_DEADLINE_S,
            method="POST",
            path="/api/messages",
            body=body,
            tokens=_SCRIPT.tokens,
        )
        seen = await one.ended()
        report.faults += seen.faults(stamped=stamped)
        if report.faults:
            break
        waits.append(_wait(seen))
    return waits


def _wait(seen: Seen) -> Wait:
    stream = seen.streams[0]
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
