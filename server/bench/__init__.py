"""`tidemark bench`: measures Tidemark from outside, with real processes and a scripted model.

Times and costs are measured here and nowhere else: no test asserts one.
"""

import sys
from typing import Final

from server.errors import StartError

SCENARIOS: Final[dict[str, str]] = {
    "first-token": "POST to first text_delta, one after the other",
    "flood": "50 streams at once, unpaced: tokens per CPU-second",
    "paced": "100 streams at 50 tokens/s: CPU per token, delay",
    "fan-out": "one answer, 1,000 readers: CPU per delivered token, delay",
    "graphql": "one answer, 200 subscribers, beside 200 native readers; memory of 1,000",
    "refusals": "CPU to refuse what cannot be read or asks for too much",
    "idle": "memory of 1,000 silent streams; what an idle worker does",
    "stop": "Stop to last token, to terminal event, to upstream let go",
    "takeover": "kill -9 of the worker under `up` to the next token",
    "history": "lists and searches in 100,000 conversations and 1,000,000 messages",
    "start": "`up` in a new folder until it serves, and to a first token",
}


def run(
    scenario: str,
    *,
    url: str | None,
    streams: int | None,
    rate: float | None,
    readers: int | None,
    as_json: bool,
) -> int:
    """Measure one scenario and print what it came to.

    None is the scenario's own size, which the targets are for. `url`: a server that runs on this machine, whose API key is in
    TIDEMARK_BENCH_API_KEY; first-token, stop and fan-out can measure one, with its built-in model and without CPU.
    Returns the exit code: 0 measured (a missed target is printed as such), 1 a process failed or something was not delivered,
    2 wrong use, with one line on standard error.
    """
    # Imported here: a command line that only lists SCENARIOS stays quick and needs no psutil.
    from server.bench.errors import MeasureError, UseError
    from server.bench.options import Options

    try:
        from server.bench.scenarios import measure
    except ModuleNotFoundError as missing:
        if missing.name != "psutil":
            raise
        raise StartError(
            "The benchmarks need psutil. Install it with: pip install 'tidemark[bench]'"
        ) from None
    try:
        report = measure(scenario, Options(url=url, streams=streams, rate=rate, readers=readers))
    except UseError as wrong:
        print(f"tidemark bench {scenario}: {wrong}", file=sys.stderr)
        return 2
    except MeasureError as failure:
        print(f"tidemark bench {scenario}: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"tidemark bench {scenario}: stopped; nothing it started is left.", file=sys.stderr)
        return 1
    if as_json:
        import orjson

        print(orjson.dumps(report.as_json()).decode())
    else:
        print(report.as_text())
    return 1 if report.faults else 0
