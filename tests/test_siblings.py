"""Siblings: responses are bounded, however many siblings a message has."""

import json

import pytest
from sqlmodel import select

from server.history.database import open_database
from server.history.messages import PAGE_MAX_CHARS
from server.history.tables import MESSAGES, Message, Role, now
from server.history.tree import SIBLINGS_MAX, sibling_windows
from server.ids import Prefix, new_id
from tests.client import Client
from tests.graph import graph
from tests.history import grow
from tests.system import System

SIBLINGS = 2_000


@pytest.fixture
async def many_siblings(tidemark: System, client: Client) -> dict[str, str]:
    """A question with 2,000 siblings, all of them roots."""
    sent = await client.send("/demo tokens=1 rate=0\nfirst")
    await client.read_through(sent["generation_id"])

    def add(session):  # type: ignore[no-untyped-def]
        session.execute(
            MESSAGES.insert(),
            [
                {
                    "id": new_id(Prefix.MESSAGE),
                    "conversation_id": sent["conversation_id"],
                    "parent_id": None,
                    "position": position,
                    "role": Role.USER,
                    "parts": [{"type": "text", "text": "again"}],
                    "metadata": {},
                    "created_at": now(),
                    "change": 1,
                }
                for position in range(1, SIBLINGS)
            ],
        )

    async with open_database(tidemark.settings.database_url) as database:
        await database.write(add)
    return sent


async def test_a_message_lists_at_most_100_siblings(
    client: Client, many_siblings: dict[str, str]
) -> None:
    message = await client.message(many_siblings["question_id"])

    assert len(message["siblings"]) == SIBLINGS_MAX
    assert message["siblings"][0] == many_siblings["question_id"]
    assert (message["position"], message["sibling_count"]) == (0, SIBLINGS)


async def test_the_listed_siblings_are_centred_on_the_message(
    tidemark: System, client: Client, many_siblings: dict[str, str]
) -> None:
    def windows(session):  # type: ignore[no-untyped-def]
        of_conversation = MESSAGES.c.conversation_id == many_siblings["conversation_id"]
        roots = select(Message).where(of_conversation, MESSAGES.c.parent_id.is_(None))
        rows = session.exec(roots).all()
        by_position = {row.position: row for row in rows}
        samples = [by_position[n] for n in (0, 49, 51, 1_000, SIBLINGS - 1)]
        return [(row.id, row.position, by_position) for row in samples], sibling_windows(
            session, samples
        )

    async with open_database(tidemark.settings.database_url) as database:
        samples, found = await database.read(windows)

    for id, position, by_position in samples:
        first = max(0, min(position - 50, SIBLINGS - 100))
        assert found[id].ids == [by_position[n].id for n in range(first, first + 100)]
        assert found[id].total == SIBLINGS


async def test_graphql_has_the_same_sibling_window(
    tidemark: System, client: Client, many_siblings: dict[str, str]
) -> None:
    def some(session):  # type: ignore[no-untyped-def]
        of_conversation = MESSAGES.c.conversation_id == many_siblings["conversation_id"]
        rows = session.exec(select(Message).where(of_conversation)).all()
        positions = (0, 49, 50, 51, 99, 1_000, SIBLINGS - 51, SIBLINGS - 50, SIBLINGS - 1)
        roots = {row.position: row.id for row in rows if row.parent_id is None}
        return [roots[n] for n in positions]

    async with open_database(tidemark.settings.database_url) as database:
        ids = await database.read(some)
    fields = " ".join(
        f'm{n}: message(id: "{id}") {{ siblingCount siblings {{ id }} }}'
        for n, id in enumerate(ids)
    )

    found = await graph(client, f"{{ {fields} }}")

    for n, id in enumerate(ids):
        expected = await client.message(id)
        assert [each["id"] for each in found[f"m{n}"]["siblings"]] == expected["siblings"]
        assert found[f"m{n}"]["siblingCount"] == SIBLINGS


async def test_the_export_of_many_siblings_grows_linearly(
    client: Client, many_siblings: dict[str, str]
) -> None:
    exported = await client.http.get(
        f"/api/conversations/{many_siblings['conversation_id']}/export"
    )

    messages = json.loads(exported.content)["messages"]
    assert len(messages) == SIBLINGS + 1
    assert len(exported.content) < 1_000 * len(messages)
    roots = [message for message in messages if message["parent_id"] is None]
    assert sorted(message["position"] for message in roots) == list(range(SIBLINGS))
    assert {len(message["siblings"]) for message in roots} == {0}


async def test_large_messages_shorten_a_page_and_paging_continues(
    tidemark: System, client: Client
) -> None:
    sent = await client.send("/demo tokens=1 rate=0\nlarge")
    await client.read_through(sent["generation_id"])
    large = "word " * 150_000
    async with open_database(tidemark.settings.database_url) as database:
        await database.write(grow, sent["conversation_id"], sent["message_id"], 8, large)

    pages, before = [], None
    while before is not None or not pages:
        query = {"limit": "100"} | ({"before": before} if before else {})
        url = f"/api/conversations/{sent['conversation_id']}/messages"
        response = await client.http.get(url, params=query)
        pages.append(response.json()["data"])
        before = response.json()["next"]

    ids = [message["id"] for page in reversed(pages) for message in page]
    assert len(ids) == len(set(ids)) == 18
    assert all(
        sum(len(json.dumps(message["content"])) for message in page[1:]) < PAGE_MAX_CHARS
        for page in pages
    )
    assert len(pages) > 2
