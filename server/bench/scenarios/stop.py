"""Stop: how soon an answer falls silent once its reader has had enough."""

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any, Final

import orjson

from server.bench.errors import MeasureError
from server.bench.load import load
from server.bench.options import Options
from server.bench.processes import temporary_folder
from server.bench.report import Figure, Report, percentile
from server.bench.script import Script
from server.bench.service import connected
from server.bench.system import MODEL, system

_ROUNDS: Final = 30
_WARM_UP_ROUNDS: Final = 3
_RATE_PER_S: Final = (
    200.0  # a token every 5 ms: at a slower pace the last token would be early by chance
)
_SAID_S: Final = 0.3
_LENGTH_S: Final = 30
_DEADLINE_S: Final = 20.0


async def measure(options: Options) -> Report:
    """In each round: POST, let it talk, POST cancel, look when the last token came and when the terminal event."""
    options.refuse("streams", "readers")
    rate = options.rate or _RATE_PER_S
    tokens = int(rate * _LENGTH_S)
    report = Report("stop", {"rounds": _ROUNDS, "rate": rate})
    text, model = str(Script(tokens=tokens, rate=rate)), MODEL
    silent_ms: list[float] = []
    ended_ms: list[float] = []
    cancels_ns: list[int] = []
    async with AsyncExitStack() as stack:
        if options.url is None:
            tested = await stack.enter_async_context(system(accounts=1))
            folder, server = tested.folder, tested.server
        else:
            host, port = options.address()
            folder = await stack.enter_async_context(temporary_folder())
            server = await stack.enter_async_context(connected(host, port, [options.key()]))
            text, model = f"/demo tokens={tokens} rate={rate:g} first_token_ms=0", "demo"
        reader = await stack.enter_async_context(load(folder, server))
        body = orjson.dumps({"text": text, "model": model}).decode()
        for number in range(_WARM_UP_ROUNDS + _ROUNDS):
            (generation_id,) = await reader.open(
                streams=1, deadline_s=_DEADLINE_S, method="POST", path="/api/messages", body=body
            )
            if generation_id is None:
                raise MeasureError((await reader.ended()).faults(stamped=False)[0])
            await asyncio.sleep(
                _SAID_S + number * 0.0013
            )  # not at the same point of the upstream's beat each time
            cancel_ns = time.monotonic_ns()
            await server.call("POST", f"/api/generations/{generation_id}/cancel?wait_s=2")
            stream = (await reader.ended()).streams[0]
            if fault := _fault(stream):
                report.faults.append(f"Round {number}: {fault}")
            cancels_ns.append(cancel_ns)
            if number >= _WARM_UP_ROUNDS:
                silent_ms.append(max(0.0, (stream["last_token_ns"] - cancel_ns) / 1e6))
                ended_ms.append((stream["ended_ns"] - cancel_ns) / 1e6)
        if options.url is None:
            answers = await tested.upstream_answers()
            let_go_ms = [
                (answer["ended_ns"] - at) / 1e6
                for answer, at in zip(answers, cancels_ns, strict=False)
                if answer["cut"]
            ]
            if len(let_go_ms) < len(cancels_ns):
                report.faults.append(
                    f"The upstream was let go in {len(let_go_ms)} of {len(cancels_ns)} rounds."
                )
            report.add(
                Figure(
                    "Stop to the upstream let go p50",
                    percentile(let_go_ms[_WARM_UP_ROUNDS:], 50),
                    "ms",
                )
            )
    report.figures[:0] = [
        Figure("Stop to last token p50", percentile(silent_ms, 50), "ms", at_most=20),
        Figure("Stop to last token, worst", max(silent_ms), "ms"),
        Figure("Stop to the terminal event p50", percentile(ended_ms, 50), "ms"),
        Figure("Stop to the terminal event, worst", max(ended_ms), "ms"),
    ]
    return report


def _fault(stream: dict[str, Any]) -> str:
    if stream["status"] != 200:
        return f"answered with {stream['status']}: {stream.get('refusal', '')}"
    if stream["terminal"] != "cancelled":
        return f"the stream ended with {stream['terminal'] or 'no terminal event'} in place of cancelled."
    return "" if stream["in_order"] and stream["tokens"] else "tokens were missing or out of order."
