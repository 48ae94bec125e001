"""Search finds questions, answers and titles of the caller's account; any query is valid."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.history.claims import Ending, Fence, claim, settle
from server.history.conversations import change_conversation, delete_conversation
from server.history.database import Database, open_database
from server.history.schema import migrate
from server.history.search import Hit, search
from server.history.tables import Account, ApiKey, Generation, Status
from server.history.tokenizer import excerpt_of, terms_of, words_of
from server.identity.callers import Caller
from server.ids import Prefix, new_id
from server.verbs.ask import Continue, Regenerate, Request, Send, write_turn
from server.verbs.inputs import AnswerOptions, SendMessage
from tests.system import System

ACCOUNT_ID, OTHER_ACCOUNT_ID = new_id(Prefix.ACCOUNT), new_id(Prefix.ACCOUNT)


@pytest.fixture(
    params=[
        pytest.param("sqlite", marks=pytest.mark.quick),
        pytest.param("postgres", marks=pytest.mark.slow),
    ]
)
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """A database of each kind with two accounts."""
    settings = (
        {"database": {"url": request.getfixturevalue("postgres").new_url()}}
        if request.param == "postgres"
        else {}
    )
    url = System(tmp_path, settings).settings.database_url
    (tmp_path / "data").mkdir()
    await migrate(url)
    async with open_database(url) as database:
        await database.write(
            lambda session: session.add_all([Account(id=ACCOUNT_ID), Account(id=OTHER_ACCOUNT_ID)])
        )
        await database.write(
            lambda session: session.add_all([key_of(ACCOUNT_ID), key_of(OTHER_ACCOUNT_ID)])
        )
        yield database


def key_of(account_id: str) -> ApiKey:
    """A valid key of the account."""
    id = f"key_of_{account_id}"
    return ApiKey(id=id, account_id=account_id, name="", prefix="", sha256=id)


class OneModel:
    """The models of an installation that offers only `demo`."""

    def id_of(self, _name: str | None) -> str:
        return "demo"


class Conversations:
    """Sends and answers messages of one account without a model."""

    def __init__(self, database: Database, account_id: str = ACCOUNT_ID) -> None:
        self.database, self.account_id = database, account_id
        self.caller = Caller(account_id, None, f"key_of_{account_id}", None)

    async def request(self, message: Request) -> Generation:
        turn = await self.database.write(write_turn, self.caller, message, None, OneModel(), 100)
        return turn.generation

    async def ask(self, question: str, answer: str, **options: Any) -> Generation:
        return await self.answer(
            await self.request(Send(SendMessage(text=question, **options))), answer
        )

    async def answer(self, generation: Generation, answer: str, **details: Any) -> Generation:
        claimed = await self.database.write(claim, generation.id, "worker")
        assert claimed is not None
        ending = Ending(Status.COMPLETED, 9, parts(answer), **details)
        settled = await self.database.write(
            settle, Fence(generation.id, "worker", claimed.attempt), self.account_id, ending
        )
        assert settled is not None
        return settled.generation

    async def find(self, query: str, *, offset: int = 0, limit: int = 100) -> list[Hit]:
        return await self.database.read(search, self.account_id, query, offset=offset, limit=limit)

    async def found(self, query: str) -> set[str | None]:
        """The ids of the messages that a search finds."""
        return {hit.message_id for hit in await self.find(query) if hit.message_id}


def parts(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text}]


async def test_questions_answers_and_titles_are_found(database: Database) -> None:
    account = Conversations(database)
    turn = await account.ask("When is high water in Dover?", "At noon, says the harbour master.")

    assert await account.find("dover") == [
        Hit(turn.conversation_id, None),
        Hit(turn.conversation_id, turn.question_id),
    ]
    assert await account.find("harbour MASTER") == [Hit(turn.conversation_id, turn.message_id)]
    assert await account.find("harbour dover") == []


async def test_a_search_finds_only_messages_of_the_same_account(database: Database) -> None:
    own = await Conversations(database).ask("the tide in Dover", "high")
    other = await Conversations(database, OTHER_ACCOUNT_ID).ask("the tide in Calais", "low")

    assert await Conversations(database).found("tide") == {own.question_id}
    assert await Conversations(database, OTHER_ACCOUNT_ID).found("tide") == {other.question_id}
    assert await Conversations(database).find(OTHER_ACCOUNT_ID.replace("_", "")) == []


async def test_phrases_prefixes_accents_and_scripts_without_spaces(database: Database) -> None:
    account = Conversations(database)
    turn = await account.ask(
        "question", "The high-water mark of Zürich’s naïve harbour; 東京の海は青い。"
    )

    for query in (
        '"water mark"',
        "harb",
        "harb*",
        "zurich",
        "ZÜRICH",
        "naive",
        "東京",
        "海は青",
        '"high water" mark',
        "mark ",
    ):
        assert await account.found(query) == {turn.message_id}, query
    for query in ('"mark water"', "harb ", '"harb"', "京東", "tokyo", "h", "h*"):
        assert await account.found(query) == set(), query


async def test_a_new_title_replaces_the_old_one(database: Database) -> None:
    account = Conversations(database)
    turn = await account.ask("first words", "answer")
    await database.write(
        change_conversation, turn.conversation_id, ACCOUNT_ID, {"title": "Tides of Dover"}
    )
    await database.write(change_conversation, turn.conversation_id, ACCOUNT_ID, {"title": "Ebb"})

    assert await account.find("tides") == []
    assert await account.find("ebb") == [Hit(turn.conversation_id, None)]


async def test_an_answer_is_found_by_its_latest_text_and_so_are_its_siblings(
    database: Database,
) -> None:
    account = Conversations(database)
    first = await account.ask("question", "beginning")
    await database.write(
        lambda session: setattr(session.get_one(Generation, first.id), "finish_reason", "length")
    )
    again = await account.request(Continue(first.message_id, AnswerOptions()))
    await account.answer(again, "beginning and end")
    other = await account.request(Regenerate(first.message_id, AnswerOptions()))
    other_answer = await account.answer(other, "quite another beginning")

    assert await account.found("end") == {first.message_id}
    assert (
        len([hit for hit in await account.find("beginning") if hit.message_id == first.message_id])
        == 1
    )
    assert await account.found("beginning") == {first.message_id, other_answer.message_id}


async def test_a_deleted_conversation_is_not_found_by_search(database: Database) -> None:
    account = Conversations(database)
    turn = await account.ask("the tide", "is high")
    await database.write(delete_conversation, turn.conversation_id, ACCOUNT_ID)

    assert await account.find("tide") == []


async def test_better_matches_come_first_and_pages_are_consistent(database: Database) -> None:
    account = Conversations(database)
    weak = await account.ask(
        "x", "one tide among many other words that have nothing to do with it at all, really"
    )
    strong = await account.ask("y", "tide tide tide")

    assert [hit.message_id for hit in await account.find("tide")] == [
        strong.message_id,
        weak.message_id,
    ]
    assert await account.find("tide", limit=1) + await account.find(
        "tide", offset=1, limit=1
    ) == await account.find("tide")


async def test_only_the_newest_of_many_matches_are_ranked(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.history.search.RANKED_MAX", 3)
    account = Conversations(database)
    turns = [
        await account.ask(
            f"question {n}", f"tide {'tide ' * n * (n != 2)}{'and so on ' * (n == 2)}"
        )
        for n in range(4)
    ]

    found = [hit.message_id for hit in await account.find("tide")]

    assert set(found) == {each.message_id for each in turns[1:]}
    assert found.index(turns[2].message_id) > found.index(turns[1].message_id)
    assert await account.find("tide", offset=3) == []


ODD_QUERIES = [
    "",
    " ",
    '"',
    '""',
    "*",
    "AND",
    "NOT",
    "a OR",
    "(",
    "NEAR(",
    "words:x",
    "^a",
    "-a",
    "a:*",
    "'",
    "\\",
    "&|!<->",
    "%",
    "\x7f",
    "\u0301",
]


@pytest.mark.parametrize("query", ODD_QUERIES)
async def test_any_query_is_valid(database: Database, query: str) -> None:
    await Conversations(database).ask("and or not near a words x", "answer")

    await Conversations(database).find(query)


@pytest.mark.quick
@given(st.text(max_size=40))
@settings(max_examples=300, deadline=None)
def test_a_text_is_found_by_any_of_its_words(text: str) -> None:
    terms = terms_of(text)
    document = f"before {text} after"

    assert all(
        "'" not in word and '"' not in word and "\\" not in word and " " not in word
        for word in words_of(text)
    )
    assert "".join(piece.text for piece in excerpt_of(document, terms)).strip("…") in document
    if words_of(text) and '"' not in text and "*" not in text:
        assert any(piece.match for piece in excerpt_of(document, terms))


@pytest.mark.quick
def test_an_excerpt_shows_the_matches() -> None:
    text = f"{'ebb and flow, ' * 40}the high Water mark of Zürich, {'and more ' * 40}"

    pieces = excerpt_of(text, terms_of('"water mark" zurich '))

    assert [piece.text for piece in pieces if piece.match] == ["Water mark", "Zürich"]
    assert pieces[0].text == "…"
    assert pieces[-1].text.endswith("…")
    assert sum(len(piece.text) for piece in pieces) < 200
