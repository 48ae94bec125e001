"""Fan-out: the cost and delay of one answer that many clients read."""

import asyncio
import time
from typing import Final

from server.bench.load import Results, load
from server.bench.options import Options
from server.bench.processes import temporary_folder
from server.bench.report import Figure, Meter, Report, percentile
from server.bench.script import Script
from server.bench.service import connected
from server.bench.system import MODEL, system

_READERS: Final = 1_000
_RATE_PER_S: Final = 50.0
_DURATION_S: Final = 10
_GATHER_MS: Final = 2_000  # until the first token, plus a time per reader to open its stream
_GATHER_MS_PER_READER: Final = 5
_LEAD_S: Final = 0.1
_WARM_UP: Final = Script(tokens=50, rate=0)


async def measure(options: Options) -> Report:
    """Readers connect before the first token. Costs are from the first token to the end."""
    options.reject("database", "streams")
    if options.url is not None:
        return await _measure_running(options)
    readers, rate = options.readers or _READERS, options.rate or _RATE_PER_S
    gather_ms = _GATHER_MS + _GATHER_MS_PER_READER * readers
    script = Script(tokens=max(1, int(rate * _DURATION_S)), rate=rate, first_token_ms=gather_ms)
    report = Report("fan-out", {"readers": readers, "tokens": script.tokens, "rate": rate})
    deadline_s = gather_ms / 1000 + 4 * _DURATION_S
    async with system(accounts=1) as tested, load(tested.folder, tested.server) as clients:
        await clients.post(_WARM_UP, streams=10, deadline_s=deadline_s)
        report.faults += (await clients.ended()).faults()
        sent = await tested.server.call(
            "POST", "/api/messages", {"text": str(script), "model": MODEL}
        )
        first_token_s = time.monotonic() + gather_ms / 1000
        path = f"/api/generations/{sent['generation_id']}/events"
        await clients.open(
            streams=readers,
            deadline_s=deadline_s,
            method="GET",
            path=path,
            tokens=script.tokens,
            shared=True,
        )
        await asyncio.sleep(max(0.0, first_token_s - _LEAD_S - time.monotonic()))
        meter = Meter(
            "from before the first token to the end",
            tested.cpu_s,
            lambda: {"load": clients.cpu_s()},
        )
        results = await clients.ended()
        costs = meter.spent(results.tokens)
    report.faults += results.faults() + _differences(results)
    if any(
        stream["opened_ns"] > stream["first_sent_ns"]
        for stream in results.streams
        if stream["first_sent_ns"]
    ):
        report.notes.append(
            "Some readers connected after the first token, which increases their first delays."
        )
    report.add_costs(costs)
    return report.add(
        Figure("CPU per delivered token", costs.us_per_token(costs.server_s), "µs", at_most=15),
        Figure("  of the web process", costs.us_per_token(costs.cpu_s["web"]), "µs"),
        *_delay_figures(results, "delay", p99_at_most_ms=50),
        Figure("tokens delivered", results.tokens, ""),
    )


async def _measure_running(options: Options) -> Report:
    """The same on a running server with `demo`.

    Its tokens have no send times: delays are relative to the first reader of each token.
    """
    host, port = options.address()
    readers, rate = options.readers or _READERS, options.rate or _RATE_PER_S
    gather_ms = _GATHER_MS + _GATHER_MS_PER_READER * readers
    tokens = max(1, int(rate * _DURATION_S))
    text = f"/demo tokens={tokens} rate={rate:g} first_token_ms={gather_ms}"
    report = Report(
        "fan-out",
        {"url": options.url, "readers": readers, "tokens": tokens, "rate": rate, "model": "demo"},
    )
    async with (
        temporary_folder() as folder,
        connected(host, port, [options.key()]) as server,
        load(folder, server) as clients,
    ):
        sent = await server.call("POST", "/api/messages", {"text": text, "model": "demo"})
        path = f"/api/generations/{sent['generation_id']}/events"
        deadline_s = gather_ms / 1000 + 4 * _DURATION_S
        await clients.open(
            streams=readers,
            deadline_s=deadline_s,
            method="GET",
            path=path,
            tokens=tokens,
            shared=True,
            lag=True,
        )
        results = await clients.ended()
    report.faults += results.faults(stamped=False) + _differences(results)
    return report.add(
        *_delay_figures(results, "after the first reader"),
        Figure("tokens delivered", results.tokens, ""),
    )


def _differences(results: Results) -> list[str]:
    texts = {stream["digest"] for stream in results.streams}
    return [] if len(texts) == 1 else [f"The readers received {len(texts)} different texts."]


def _delay_figures(
    results: Results, name: str, p99_at_most_ms: float | None = None
) -> list[Figure]:
    delays_ms = [delay_us / 1000 for delay_us in results.delays_us]
    return [
        Figure(f"{name} p50", percentile(delays_ms, 50), "ms"),
        Figure(f"{name} p99", percentile(delays_ms, 99), "ms", at_most=p99_at_most_ms),
        Figure(f"{name}, worst", max(delays_ms, default=float("nan")), "ms"),
    ]
