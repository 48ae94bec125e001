"""Search through GraphQL: pages, excerpts, and isolation between accounts."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.client import Client
from tests.databases import both_databases
from tests.graph import code, graph
from tests.system import System

HITS = """
query ($words: String!, $first: Int, $after: String, $last: Int, $before: String) {
  search(query: $words, first: $first, after: $after, last: $last, before: $before) {
    edges { cursor node { conversation { id } message { id text } excerpt { text match } } }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}"""


@pytest.fixture
async def caller(tidemark: System) -> AsyncIterator[Client]:
    """A caller with its own account."""
    async with Client(tidemark.web.url, tidemark.new_key(account="search@example.org")) as client:
        yield client


async def search(client: Client, query: str, **page: Any) -> dict[str, Any]:
    return dict((await graph(client, HITS, words=query, **page))["search"])


async def test_questions_and_answers_are_found_with_an_excerpt(
    caller: Client, client: Client
) -> None:
    sent = await caller.send("/demo tokens=30 rate=0\nWhen is high water in Dünkirchen?")
    await caller.read_through(sent["generation_id"])
    word = (await caller.message(sent["message_id"]))["text"].split()[-1]

    hits = (await search(caller, "dunkirchen"))["edges"]
    answers = (await search(caller, word))["edges"]

    assert [hit["node"]["message"] and hit["node"]["message"]["id"] for hit in hits] == [
        None,
        sent["question_id"],
    ]
    assert [part["text"] for part in hits[1]["node"]["excerpt"] if part["match"]] == ["Dünkirchen"]
    assert sent["message_id"] in [
        hit["node"]["message"]["id"] for hit in answers if hit["node"]["message"]
    ]
    assert (await search(client, "dunkirchen"))["edges"] == []


@both_databases
async def test_pages_of_hits_contain_every_hit_exactly_once(caller: Client) -> None:
    for n in range(7):
        sent = await caller.send(f"/demo tokens=1 rate=0\npelican {n}")
        await caller.read_through(sent["generation_id"])
    whole = (await search(caller, "pelican", first=100))["edges"]
    assert len(whole) == 14

    forwards: list[Any] = []
    page: dict[str, Any] = {"pageInfo": {"endCursor": None, "hasNextPage": True}}
    while page["pageInfo"]["hasNextPage"]:
        page = await search(caller, "pelican", first=4, after=page["pageInfo"]["endCursor"])
        forwards += page["edges"]
    backwards: list[Any] = []
    page = {"pageInfo": {"startCursor": None, "hasPreviousPage": True}}
    while page["pageInfo"]["hasPreviousPage"]:
        page = await search(caller, "pelican", last=4, before=page["pageInfo"]["startCursor"])
        backwards = page["edges"] + backwards

    assert forwards == whole
    assert backwards == whole


@both_databases
async def test_a_deleted_conversation_is_found_only_after_it_is_restored(caller: Client) -> None:
    sent = await caller.send("/demo tokens=1 rate=0\ncormorant")
    await caller.read_through(sent["generation_id"])
    await caller.http.delete(f"/api/conversations/{sent['conversation_id']}")
    assert (await search(caller, "cormorant"))["edges"] == []

    await graph(
        caller,
        "mutation ($id: ID!) { restoreConversation(input: {id: $id}) { conversation { id } } }",
        id=sent["conversation_id"],
    )

    assert len((await search(caller, "cormorant"))["edges"]) == 2


@pytest.mark.parametrize("page", [{"after": "x"}, {"after": "aGl0fC0x"}, {"before": "aGl0fHg"}])
async def test_an_invalid_search_cursor_is_refused(caller: Client, page: dict[str, str]) -> None:
    assert await code(caller, HITS, words="x", **page) == "invalid_cursor"


async def test_any_query_within_the_length_limit_is_accepted(caller: Client) -> None:
    for query in ("", '"', "AND (", "*", "a" * 1000, "🌊"):
        await search(caller, query)

    assert await code(caller, HITS, words="a" * 1001) == "invalid_request"
