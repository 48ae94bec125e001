"""Stop: how soon a cancelled answer ends."""

import asyncio
import time
from typing import Any, Final, NamedTuple

import orjson

from server.bench.errors import MeasureError
from server.bench.load import Load, load
from server.bench.options import Options
from server.bench.processes import temporary_folder
from server.bench.report import Figure, Report, percentile
from server.bench.script import Script
from server.bench.service import Server, connected
from server.bench.system import MODEL, system

_ROUNDS: Final = 30
_WARM_UP_ROUNDS: Final = 3
_RATE_PER_S: Final = 200.0  # one every 5 ms: at a slower rate the last token is early by chance
_CANCEL_AFTER_S: Final = 0.3
_LENGTH_S: Final = 30
_DEADLINE_S: Final = 20.0


class Round(NamedTuple):
    """One cancelled answer: when it was cancelled, and the waits from then on."""

    cancelled_ns: int
    silent_ms: float
    ended_ms: float


async def measure(options: Options) -> Report:
    """In each round: start an answer, cancel it, and wait for its last token and terminal event."""
    options.reject("database", "streams", "readers")
    rate = options.rate or _RATE_PER_S
    tokens = int(rate * _LENGTH_S)
    report = Report("stop", {"rounds": _ROUNDS, "rate": rate})
    if options.url is None:
        text = str(Script(tokens=tokens, rate=rate))
        body = orjson.dumps({"text": text, "model": MODEL}).decode()
        async with system(accounts=1) as tested, load(tested.folder, tested.server) as reader:
            rounds = await _rounds(tested.server, reader, body, report)
            answers = await tested.upstream_answers()
        report.add(_upstream_figure(answers, rounds, report))
    else:
        host, port = options.address()
        text = f"/demo tokens={tokens} rate={rate:g} first_token_ms=0"
        body = orjson.dumps({"text": text, "model": "demo"}).decode()
        async with (
            temporary_folder() as folder,
            connected(host, port, [options.key()]) as server,
            load(folder, server) as reader,
        ):
            rounds = await _rounds(server, reader, body, report)
    silent_ms = [each.silent_ms for each in rounds[_WARM_UP_ROUNDS:]]
    ended_ms = [each.ended_ms for each in rounds[_WARM_UP_ROUNDS:]]
    report.figures[:0] = [
        Figure("Stop to last token p50", percentile(silent_ms, 50), "ms", at_most=20),
        Figure("Stop to last token, worst", max(silent_ms), "ms"),
        Figure("Stop to the terminal event p50", percentile(ended_ms, 50), "ms"),
        Figure("Stop to the terminal event, worst", max(ended_ms), "ms"),
    ]
    return report


async def _rounds(server: Server, reader: Load, body: str, report: Report) -> list[Round]:
    rounds = []
    for number in range(_WARM_UP_ROUNDS + _ROUNDS):
        (generation_id,) = await reader.open(
            streams=1, deadline_s=_DEADLINE_S, method="POST", path="/api/messages", body=body
        )
        if generation_id is None:
            raise MeasureError((await reader.ended()).faults(stamped=False)[0])
        # Each round cancels at another moment between two tokens of the upstream.
        await asyncio.sleep(_CANCEL_AFTER_S + number * 0.0013)
        cancelled_ns = time.monotonic_ns()
        await server.call("POST", f"/api/generations/{generation_id}/cancel?wait_s=2")
        stream = (await reader.ended()).streams[0]
        if fault := _fault(stream):
            report.faults.append(f"Round {number}: {fault}")
        rounds.append(
            Round(
                cancelled_ns,
                silent_ms=max(0.0, (stream["last_token_ns"] - cancelled_ns) / 1e6),
                ended_ms=(stream["ended_ns"] - cancelled_ns) / 1e6,
            )
        )
    return rounds


def _upstream_figure(answers: list[dict[str, Any]], rounds: list[Round], report: Report) -> Figure:
    """How long until the upstream's connection was closed. Reports rounds in which it was not."""
    closed_ms = [
        (answer["ended_ns"] - each.cancelled_ns) / 1e6
        for answer, each in zip(answers, rounds, strict=False)
        if answer["cut"]
    ]
    if len(closed_ms) < len(rounds):
        report.faults.append(
            f"The upstream connection was closed in {len(closed_ms)} of {len(rounds)} rounds."
        )
    return Figure("Stop to upstream closed p50", percentile(closed_ms[_WARM_UP_ROUNDS:], 50), "ms")


def _fault(stream: dict[str, Any]) -> str:
    if stream["status"] != 200:
        return f"answered with {stream['status']}: {stream.get('refusal', '')}"
    if stream["terminal"] != "cancelled":
        terminal = stream["terminal"] or "no terminal event"
        return f"the stream ended with {terminal} instead of cancelled."
    return "" if stream["in_order"] and stream["tokens"] else "tokens were missing or out of order."
