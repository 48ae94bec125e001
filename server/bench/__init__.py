"""`tidemark bench`: measures Tidemark from outside, with real processes and a scripted model.

No test asserts a time or a cost; they are only measured here.
"""

import sys
from typing import Final

from server.errors import StartError

SCENARIOS: Final[dict[str, str]] = {
    "first-token": "time from POST to the first token, idle and under load",
    "flood": "50 streams at full speed: tokens per CPU second",
    "paced": "100 streams at 50 tokens/s: CPU per token, delay",
    "fan-out": "one answer to 1,000 readers: CPU per delivered token, delay",
    "graphql": "one answer to 200 subscribers and to 200 native readers; memory of 1,000",
    "refusals": "CPU to reject GraphQL requests that are not valid or too large",
    "idle": "memory of 1,000 silent streams; Redis commands and CPU of an idle worker",
    "burst": "200 questions at once: time to their 202 and to their first tokens",
    "stop": "time from cancelling to the last token, the terminal event, the upstream's end",
    "takeover": "time from kill -9 of a process under `up` until its work goes on",
    "history": "lists and searches in 100,000 conversations and 1,000,000 messages",
    "start": "time from `up` in a new folder until it is ready, and to the first token",
}


def run(
    scenario: str,
    *,
    url: str | None,
    streams: int | None,
    rate: float | None,
    readers: int | None,
    database: str | None,
    as_json: bool,
) -> int:
    """Runs one scenario and prints its report. Raises StartError if psutil is missing.

    None means the scenario's own size, to which its targets apply. `url` is a running server on
    this machine, whose API key is in TIDEMARK_BENCH_API_KEY; first-token, stop and fan-out can
    measure one, with its demo model and without CPU times. `database` is the address of an empty
    PostgreSQL database, for first-token, flood, paced, burst and history; its CPU time is not
    measured.

    Returns the exit code: 0 measured (also if a target was missed), 1 a process failed or events
    were not delivered, 2 wrong use. Errors are one line on standard error.
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
        options = Options(url=url, streams=streams, rate=rate, readers=readers, database=database)
        report = measure(scenario, options)
    except UseError as wrong:
        print(f"tidemark bench {scenario}: {wrong}", file=sys.stderr)
        return 2
    except MeasureError as failure:
        print(f"tidemark bench {scenario}: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            f"tidemark bench {scenario}: interrupted; all processes it started have ended.",
            file=sys.stderr,
        )
        return 1
    if as_json:
        import orjson

        print(orjson.dumps(report.as_json()).decode())
    else:
        print(report.as_text())
    return 1 if report.faults else 0
