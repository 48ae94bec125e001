"""History: lists and searches of an account with 1,000,000 messages, beside one with 1,000."""

import asyncio
import random
import time
from typing import Any, Final

from server.bench.errors import MeasureError
from server.bench.options import Options
from server.bench.report import Figure, Meter, Report, percentile
from server.bench.seed import COMMON, WORDS
from server.bench.service import Server
from server.bench.system import System, system

CONVERSATIONS: Final = 100_000
MESSAGES: Final = 1_000_000
SMALL_CONVERSATIONS: Final = 100
SMALL_MESSAGES: Final = 1_000
SEED_TIMEOUT_S: Final = 1_800.0
ROUNDS: Final = 200
PAGES_DEEP: Final = 20

_LIST: Final = """query ($after: String) { conversations(first: 50, after: $after) {
  nodes { id title model pinned updatedAt
          lastMessage { id role text status generation { id model usage { outputTokens } } } }
  pageInfo { endCursor hasNextPage } } }"""
_BRANCH: Final = """query ($id: ID!) { conversation(id: $id) {
  messages { nodes { id role text status } } } }"""
_SEARCH: Final = """query ($words: String!) { search(query: $words, first: 20) {
  nodes { conversation { id title } message { id role createdAt } excerpt { text match } } } }"""


async def measure(options: Options) -> Report:
    """Sends one query after the other: pages of the list, messages, searches."""
    options.reject("url", "rate", "streams", "readers")
    report = Report(
        "history", {"conversations": CONVERSATIONS, "messages": MESSAGES, "rounds": ROUNDS}
    )
    async with system(options.database, accounts=2) as tested:
        began = time.monotonic()
        await _seed(tested, 0, CONVERSATIONS, MESSAGES)
        seeded_s = time.monotonic() - began
        await _seed(tested, 1, SMALL_CONVERSATIONS, SMALL_MESSAGES)
        await tested.restart_web()
        meter = Meter("reading", tested.cpu_s)
        small_ms = await _lists(tested.server.as_account(1))
        lists_ms = await _lists(tested.server)
        branch_ms = await _branches(tested.server)
        searches = {
            name: await _searches(tested.server, queries) for name, queries in _queries().items()
        }
        report.add_costs(meter.spent())
    lists_p95_ms, small_p50_ms = percentile(lists_ms, 95), percentile(small_ms, 50)
    found = [each for times in searches.values() for each in times]
    report.add(
        Figure("conversations(first: 50) p50", percentile(lists_ms, 50), "ms"),
        Figure("conversations(first: 50) p95", lists_p95_ms, "ms", at_most=25),
        Figure("  ÷ its p50 with 1,000 messages", lists_p95_ms / small_p50_ms, "", at_most=1.5),
        Figure("messages of a conversation p95", percentile(branch_ms, 95), "ms"),
        Figure("search p50", percentile(found, 50), "ms"),
        Figure("search p95", percentile(found, 95), "ms", at_most=60),
        Figure("  ÷ its p50", percentile(found, 95) / percentile(found, 50), "", at_most=3),
        *(
            Figure(f"search, {name}, p95", percentile(times, 95), "ms")
            for name, times in searches.items()
        ),
        Figure("seeding", seeded_s, "s"),
    )
    return report


async def _seed(tested: System, account: int, conversations: int, messages: int) -> None:
    email = f"bench-{account}@example.com"
    arguments = ["--data-dir", str(tested.folder.data), "--email", email]
    arguments += ["--conversations", str(conversations), "--messages", str(messages)]
    seeding = await tested.folder.start(f"seed-{account}", "server.bench.seed", *arguments)
    async with asyncio.timeout(SEED_TIMEOUT_S):
        if await seeding.process.wait():
            raise MeasureError(f"Seeding failed.{seeding.log_tail()}")


async def _lists(server: Server) -> list[float]:
    took_ms, after = [], None
    for number in range(ROUNDS):
        ms, data = await _ask(server, _LIST, after=after)
        took_ms.append(ms)
        if len(data["conversations"]["nodes"]) != 50:
            raise MeasureError("A page of conversations was not full.")
        page = data["conversations"]["pageInfo"]
        after = page["endCursor"] if page["hasNextPage"] and number % PAGES_DEEP else None
    return took_ms


async def _branches(server: Server) -> list[float]:
    _, data = await _ask(server, _LIST)
    took_ms = []
    for number in range(ROUNDS):
        conversation_id = data["conversations"]["nodes"][number % 50]["id"]
        ms, _ = await _ask(server, _BRANCH, id=conversation_id)
        took_ms.append(ms)
    return took_ms


def _queries() -> dict[str, list[str]]:
    rng = random.Random(1)
    rare = [f"w{rng.randrange(2, WORDS)} " for _ in range(ROUNDS)]
    common = [f"{rng.choice(COMMON)} " for _ in range(ROUNDS // 4)]
    return {
        "a rare word": rare,
        "a common word": common,
        "two words": [
            f"{rng.choice(COMMON)} w{rng.randrange(2, 200)} " for _ in range(ROUNDS // 4)
        ],
        "a phrase": [f'"{rng.choice(COMMON)} {rng.choice(COMMON)}"' for _ in range(ROUNDS // 4)],
        "the beginning of a word": [rng.choice(COMMON)[:3] for _ in range(ROUNDS // 4)],
    }


async def _searches(server: Server, queries: list[str]) -> list[float]:
    return [(await _ask(server, _SEARCH, words=words))[0] for words in queries]


async def _ask(server: Server, query: str, **variables: Any) -> tuple[float, dict[str, Any]]:
    began = time.monotonic()
    answer = await server.call("POST", "/graphql", {"query": query, "variables": variables})
    took_ms = (time.monotonic() - began) * 1e3
    if "errors" in answer:
        raise MeasureError(f"GraphQL error: {answer['errors'][0]['message']}")
    return took_ms, answer["data"]
