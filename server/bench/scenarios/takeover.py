"""Takeover: the time from killing a process of `up` until its work goes on."""

import asyncio
import time
from hashlib import sha256
from typing import Any, Final

import orjson

from server.bench.errors import MeasureError
from server.bench.options import Options
from server.bench.report import Figure, Report, percentile
from server.bench.service import ready
from server.bench.up import Up, up

_ROUNDS: Final = 3
_TOKENS: Final = 360
_RATE_PER_S: Final = 60.0
_SAID_S: Final = 2.0
_DEADLINE_S: Final = 90.0


async def measure(options: Options) -> Report:
    """Each round has its own `up`, so that none waits for the restart delay of an earlier one."""
    options.reject("database", "url", "streams", "readers")
    rate = options.rate or _RATE_PER_S
    report = Report("takeover", {"rounds": _ROUNDS, "tokens": _TOKENS, "rate": rate})
    waits_s, web_s = [], []
    for number in range(1, 1 + _ROUNDS):
        async with up() as running:
            waits_s.append(await _round(running, rate, number, report))
            web_s.append(await _kill_web(running))
    return report.add(
        Figure("worker kill -9 to the next token, worst", max(waits_s), "s", at_most=0.4),
        Figure("worker kill -9 to the next token, p50", percentile(waits_s, 50), "s"),
        Figure("web kill -9 until it answers again, worst", max(web_s), "s", at_most=0.4),
        Figure("web kill -9 until it answers again, p50", percentile(web_s, 50), "s"),
    )


async def _round(running: Up, rate: float, number: int, report: Report) -> float:
    """Seconds from the kill to the first token of the new worker."""
    body = orjson.dumps({"text": f"/demo tokens={_TOKENS} rate={rate:g}", "model": "demo"}).decode()
    await running.reader.open(
        streams=1,
        deadline_s=_DEADLINE_S,
        method="POST",
        path="/api/messages",
        body=body,
        traced=True,
    )
    await asyncio.sleep(_SAID_S)
    worker = running.child("worker")
    killed_ns = time.monotonic_ns()
    worker.kill()
    stream = (await running.reader.ended()).streams[0]
    if stream["status"] != 200:
        raise MeasureError(
            f"POST /api/messages was answered with {stream['status']}: {stream.get('refusal', '')}"
        )
    snapshot = await running.server.call("GET", f"/api/generations/{stream['generation_id']}")
    if fault := _fault(stream, snapshot):
        report.faults.append(f"Round {number}: {fault}")
    passed_on_ns, how = next(
        (
            (at_ns, name)
            for at_ns, _, name, _ in stream["trace"]
            if name in ("resumed", "restarted")
        ),
        (0, ""),
    )
    if not how:
        raise MeasureError(
            "Received neither resumed nor restarted: the answer may have ended before the kill."
        )
    after_ns = [
        at_ns
        for at_ns, _, name, _ in stream["trace"]
        if name == "text_delta" and at_ns >= passed_on_ns
    ]
    if not after_ns:
        raise MeasureError("Received no token after the takeover.")
    report.notes.append(
        f"Round {number}: {how} after {(passed_on_ns - killed_ns) / 1e9:.2f} s, "
        f"next token after {(after_ns[0] - killed_ns) / 1e9:.2f} s."
    )
    return float(after_ns[0] - killed_ns) / 1e9


async def _kill_web(running: Up) -> float:
    """Seconds from the kill of the only web process until /readyz answers."""
    web = running.child("web")
    killed_ns = time.monotonic_ns()
    web.kill()
    web.wait()
    await ready(running.server, running.process)
    return float(time.monotonic_ns() - killed_ns) / 1e9


def _fault(stream: dict[str, Any], snapshot: dict[str, Any]) -> str:
    if stream["terminal"] != "completed":
        terminal = stream["terminal"] or "no terminal event"
        return f"the stream ended with {terminal} instead of completed."
    if not stream["in_order"]:
        return "event numbers were out of order."
    if stream["tokens"] != _TOKENS:
        return f"{stream['tokens']} tokens were received instead of {_TOKENS}."
    same = sha256(snapshot["text"].encode()).hexdigest() == stream["digest"]
    return "" if same else "the deltas do not match the stored text."
