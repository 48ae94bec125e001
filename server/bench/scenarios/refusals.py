"""Refusals: the cost of rejecting GraphQL requests that are not valid or too large."""

from collections.abc import Mapping
from typing import Final

import aiohttp
import orjson

from server.bench.errors import MeasureError
from server.bench.options import Options
from server.bench.report import Figure, Report
from server.bench.system import System, system

_ROUNDS: Final = 10
_WORST_SHOWN: Final = 5
_MB: Final = 1_000_000
_DEEP: Final = 100_000


def _asked(document: str) -> bytes:
    return orjson.dumps({"query": document})


BODIES: Final[Mapping[str, bytes]] = {
    "nothing": b"",
    "1": b"1",
    "null": b"null",
    '"x"': b'"x"',
    "[]": b"[]",
    "50 MB": b" " * (50 * _MB),
    "JSON 100,000 deep": b"[" * _DEEP + b"]" * _DEEP,
    "1 MB of numbers": b"[" + b"1," * (_MB // 2) + b"1]",
    "1 MB of names": b"{" + b",".join(b'"%d":1' % n for n in range(_MB // 11)) + b"}",
    "a text of 1 MB": _asked('{ node(id: "' + "x" * _MB + '") { id } }'),
    "a text of 65,000 characters, not closed": _asked('{ node(id: "' + "x" * 65_000),
    "a block text of 65,000 characters": _asked('{ nothing(id: """' + "x\n" * 32_500 + '""") }'),
    "commas": _asked("{ a" + "," * _MB + "}"),
    "50,000 comments": _asked("#\n" * 50_000 + "{ __typename }"),
    "50,000 aliases": _asked("{" + " ".join(f"a{n}: __typename" for n in range(50_000)) + "}"),
    "20,000 directives": _asked("{ __typename " + "@skip(if: false) " * 20_000 + "}"),
    "fields 100,000 deep": _asked("{a" * _DEEP),
    "lists 100,000 deep": _asked("{ node(id: " + "[" * _DEEP),
    "300 unknown fields": _asked("{" + " ".join(f"field{n}" for n in range(300)) + "}"),
    "30 times the same unknown field": _asked("{" + " conversation(id: 1) { nothing }" * 30 + "}"),
    "fragments that double": _asked(
        "query { ...F0 } "
        + " ".join(f"fragment F{n} on Query {{ ...F{n + 1} ...F{n + 1} }}" for n in range(40))
        + " fragment F40 on Query { __typename }"
    ),
    "fragments that meet": _asked(
        "{ ...A ...B ...C } "
        + " ".join(
            f"fragment {name} on Query {{" + " models { id name }" * 30 + "}" for name in "ABC"
        )
    ),
    "pages of pages": _asked(
        "{ conversations(first: 100) { nodes { "
        "messages(first: 100) { nodes { siblings { text } } } } } }"
    ),
}


async def measure(options: Options) -> Report:
    """Sends each body several times, and measures the CPU time of the web process."""
    options.reject("database", "url", "streams", "readers", "rate")
    report = Report("refusals", {"bodies": len(BODIES), "rounds": _ROUNDS})
    async with system(accounts=1) as tested, aiohttp.ClientSession() as session:
        costs_ms = {}
        for name, body in BODIES.items():
            await _refused(tested, session, name, body)
            before_s = tested.cpu_s()["web"]
            for _ in range(_ROUNDS):
                await _refused(tested, session, name, body)
            costs_ms[name] = (tested.cpu_s()["web"] - before_s) * 1000 / _ROUNDS
    dearest = sorted(costs_ms, key=lambda name: costs_ms[name], reverse=True)
    report.add(
        Figure(
            "CPU of the web process per rejected request, worst",
            costs_ms[dearest[0]],
            "ms",
            at_most=50,
        )
    )
    return report.add(
        *(Figure(f"  {name}", costs_ms[name], "ms") for name in dearest[:_WORST_SHOWN])
    )


async def _refused(tested: System, session: aiohttp.ClientSession, name: str, body: bytes) -> None:
    """Sends one body to /graphql. Raises MeasureError if its status is not 4xx."""
    headers = {
        "Authorization": f"Bearer {tested.server.keys[0]}",
        "Content-Type": "application/json",
    }
    headers["Accept"] = "application/graphql-response+json"
    try:
        async with session.post(
            f"{tested.server.url}/graphql", data=body, headers=headers
        ) as answer:
            text = await answer.text()
    except aiohttp.ClientError as failure:
        raise MeasureError(f"{name}: {failure!r}") from failure
    if not 400 <= answer.status < 500:
        raise MeasureError(f"{name} was answered with {answer.status}: {text[:300]}")
