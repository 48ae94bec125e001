"""Search finds what was said and how conversations are called, and nobody else's; no query is wrong."""

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

ME, THEM = new_id(Prefix.ACCOUNT), new_id(Prefix.ACCOUNT)


@pytest.fixture(
    params=[
        pytest.param("sqlite", marks=pytest.mark.quick),
        pytest.param("postgres", marks=pytest.mark.slow),
    ]
)
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """A database of each kind, with two accounts."""
    settings = (
        {"database": {"url": request.getfixturevalue("postgres").new_url()}}
        if request.param == "postgres"
        else {}
    )
    url = System(tmp_path, settings).settings.database_url
    (tmp_path / "data").mkdir()
    await migrate(url)
    async with open_database(url) as database:
        await database.write(lambda session: session.add_all([Account(id=ME), Account(id=THEM)]))
        await database.write(lambda session: session.add_all([key_of(ME), key_of(THEM)]))
        yield database


def key_of(account_id: str) -> ApiKey:
    """A valid key of the account."""
    id = f"key_of_{account_id}"
    return ApiKey(id=id, account_id=account_id, name="", prefix="", sha256=id)


class OneModel:
    """Stands for the models of an installation that offers only `demo`."""

    def id_of(self, _name: str | None) -> str:
        return "demo"


class Talk:
    """Somebody who asks and is answered, without a model."""

    def __init__(self, database: Database, account_id: str = ME) -> None:
        self.database, self.account_id = database, account_id
        self.caller = Caller(account_id, None, f"key_of_{account_id}", None)

    async def request(self, what: Request) -> Generation:
        turn = await self.database.write(write_turn, self.caller, what, None, OneModel(), 100)
        return turn.generation

    async def ask(self, question: str, answer: str, **place: Any) -> Generation:
        return await self.answer(
            await self.request(Send(SendMessage(text=question, **place))), answer
        )

    async def answer(self, generation: Generation, answer: str, **how: Any) -> Generation:
        claimed = await self.database.write(claim, generation.id, "worker")
        assert claimed is not None
        ending = Ending(Status.COMPLETED, 9, parts(answer), **how)
        settled = await self.database.write(
            settle, Fence(generation.id, "worker", claimed.attempt), self.account_id, ending
        )
        assert settled is not None
        return settled.generation

    async def find(self, query: str, *, offset: int = 0, limit: int = 100) -> list[Hit]:
        return await self.database.read(search, self.account_id, query, offset=offset, limit=limit)

    async def found(self, query: str) -> set[str | None]:
        """The messages that were found."""
        return {hit.message_id for hit in await self.find(query) if hit.message_id}


def parts(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text}]


async def test_questions_answers_and_titles_are_found(database: Database) -> None:
    talk = Talk(database)
    said = await talk.ask("When is high water in Dover?", "At noon, says the harbour master.")

    assert await talk.find("dover") == [
        Hit(said.conversation_id, None),
        Hit(said.conversation_id, said.question_id),
    ]
    assert await talk.find("harbour MASTER") == [Hit(said.conversation_id, said.message_id)]
    assert await talk.find("harbour dover") == []


async def test_nobody_finds_what_others_said(database: Database) -> None:
    mine = await Talk(database).ask("the tide in Dover", "high")
    theirs = await Talk(database, THEM).ask("the tide in Calais", "low")

    assert await Talk(database).found("tide") == {mine.question_id}
    assert await Talk(database, THEM).found("tide") == {theirs.question_id}
    assert await Talk(database).find(THEM.replace("_", "")) == []


async def test_phrases_prefixes_marks_and_scripts_without_spaces(database: Database) -> None:
    talk = Talk(database)
    said = await talk.ask(
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
        assert await talk.found(query) == {said.message_id}, query
    for query in ('"mark water"', "harb ", '"harb"', "京東", "tokyo", "h", "h*"):
        assert await talk.found(query) == set(), query


async def test_a_new_title_replaces_the_old_one(database: Database) -> None:
    talk = Talk(database)
    said = await talk.ask("first words", "answer")
    await database.write(change_conversation, said.conversation_id, ME, {"title": "Tides of Dover"})
    await database.write(change_conversation, said.conversation_id, ME, {"title": "Ebb"})

    assert await talk.find("tides") == []
    assert await talk.find("ebb") == [Hit(said.conversation_id, None)]


async def test_an_answer_is_found_by_its_last_writing_and_by_each_of_its_siblings(
    database: Database,
) -> None:
    talk = Talk(database)
    first = await talk.ask("question", "beginning")
    await database.write(
        lambda session: setattr(session.get_one(Generation, first.id), "finish_reason", "length")
    )
    again = await talk.request(Continue(first.message_id, AnswerOptions()))
    await talk.answer(again, "beginning and end")
    other = await talk.request(Regenerate(first.message_id, AnswerOptions()))
    other_answer = await talk.answer(other, "quite another beginning")

    assert await talk.found("end") == {first.message_id}
    assert (
        len([hit for hit in await talk.find("beginning") if hit.message_id == first.message_id])
        == 1
    )
    assert await talk.found("beginning") == {first.message_id, other_answer.message_id}


async def test_what_was_deleted_is_not_found(database: Database) -> None:
    talk = Talk(database)
    said = await talk.ask("the tide", "is high")
    await database.write(delete_conversation, said.conversation_id, ME)

    assert await talk.find("tide") == []


async def test_the_better_match_comes_first_and_pages_are_whole(database: Database) -> None:
    talk = Talk(database)
    weak = await talk.ask(
        "x", "one tide among many other words that have nothing to do with it at all, really"
    )
    strong = await talk.ask("y", "tide tide tide")

    assert [hit.message_id for hit in await talk.find("tide")] == [
        strong.message_id,
        weak.message_id,
    ]
    assert await talk.find("tide", limit=1) + await talk.find(
        "tide", offset=1, limit=1
    ) == await talk.find("tide")


async def test_of_too_many_matches_the_newest_are_ranked(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.history.search.RANKED_MAX", 3)
    talk = Talk(database)
    said = [
        await talk.ask(f"question {n}", f"tide {'tide ' * n * (n != 2)}{'and so on ' * (n == 2)}")
        for n in range(4)
    ]

    found = [hit.message_id for hit in await talk.find("tide")]

    assert set(found) == {each.message_id for each in said[1:]}
    assert found.index(said[2].message_id) > found.index(said[1].message_id)
    assert await talk.find("tide", offset=3) == []


ODD = [
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


@pytest.mark.parametrize("query", ODD)
async def test_no_query_is_wrong(database: Database, query: str) -> None:
    await Talk(database).ask("and or not near a words x", "answer")

    await Talk(database).find(query)


@pytest.mark.quick
@given(st.text(max_size=40))
@settings(max_examples=300, deadline=None)
def test_a_text_is_found_by_any_of_its_words(text: str) -> None:
    terms = terms_of(text)
    said = f"before {text} after"

    assert all(
        "'" not in word and '"' not in word and "\\" not in word and " " not in word
        for word in words_of(text)
    )
    assert "".join(piece.text for piece in excerpt_of(said, terms)).strip("…") in said
    if words_of(text) and '"' not in text and "*" not in text:
        assert any(piece.match for piece in excerpt_of(said, terms))


@pytest.mark.quick
def test_an_excerpt_shows_where_it_was_found() -> None:
    text = f"{'ebb and flow, ' * 40}the high Water mark of Zürich, {'and more ' * 40}"

    pieces = excerpt_of(text, terms_of('"water mark" zurich '))

    assert [piece.text for piece in pieces if piece.match] == ["Water mark", "Zürich"]
    assert pieces[0].text == "…"
    assert pieces[-1].text.endswith("…")
    assert sum(len(piece.text) for piece in pieces) < 200
