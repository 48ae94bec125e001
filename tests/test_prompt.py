"""A prompt costs what of it fits the model, and nobody waits for the database while it is read."""

import sqlite3
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from server.generate import claim as claiming
from server.generate.claim import Claimed, claim_and_prepare
from server.history.database import Database, DatabaseAway, open_database
from server.history.schema import migrate
from server.history.tables import Account, Generation, Role
from server.history.tree import PROMPT_PAGE_CHARS, prompt_branch
from server.ids import Prefix, new_id
from server.lifecycle.prompt import prompt_tokens
from server.lifecycle.usage import tokens_in
from server.providers.registry import Models
from server.settings import Settings
from server.verbs.ask import Send
from server.verbs.inputs import SendMessage
from tests.history import grow
from tests.test_search import Conversations, key_of

pytestmark = pytest.mark.quick

ME = new_id(Prefix.ACCOUNT)
OUTPUT_TOKENS = 1_000
PAGES_BYTES = 30_000_000
"""More than a few pages with a large message in each, and less than all of a branch of 32 MB."""


@pytest.fixture(
    params=[
        pytest.param("sqlite", marks=pytest.mark.quick),
        pytest.param("postgres", marks=pytest.mark.slow),
    ]
)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        server_url: str = request.getfixturevalue("postgres").new_url()
        return server_url.replace("postgresql://", "postgresql+asyncpg://")
    return f"sqlite:///{tmp_path}/test.db"


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    await migrate(url)
    async with open_database(url) as database:
        await database.write(lambda session: session.add_all([Account(id=ME), key_of(ME)]))
        yield database


@pytest.fixture
def models() -> Models:
    return Models(Settings())


async def branch_of(database: Database, exchanges: int, text: str) -> Generation:
    """A queued generation below that many questions and answers."""
    talk = Conversations(database, ME)
    first = await talk.ask("first", "answer")
    await database.write(grow, first.conversation_id, first.message_id, exchanges, text)
    return await talk.request(Send(SendMessage(text="last", conversation_id=first.conversation_id)))


async def claimed(database: Database, generation: Generation, models: Models) -> Claimed:
    result = await claim_and_prepare(database, generation.id, "worker", models, OUTPUT_TOKENS)
    assert result is not None
    return result


@pytest.fixture
def peak_bytes() -> Iterator[Callable[[], int]]:
    """The most memory that the objects of a test took at a time."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


async def test_what_does_not_fit_a_model_is_not_read(
    database: Database, models: Models, request: pytest.FixtureRequest
) -> None:
    text = "word " * 200_000
    generation = await branch_of(database, 16, text)
    peak_bytes = request.getfixturevalue("peak_bytes")

    prompt = await claimed(database, generation, models)

    assert prompt.request is not None
    turns = prompt.request.turns
    assert turns[-1].parts[0]["text"] == "last"
    assert prompt.messages_left_out == 2 + 32 + 1 - len(turns)
    stored = await database.read(lambda session: session.get_one(Generation, generation.id))
    assert stored.messages_left_out == prompt.messages_left_out
    room = models.find("demo").context_tokens
    assert sum(tokens_in(turn.parts) for turn in turns) <= room
    assert peak_bytes() < PAGES_BYTES


async def test_an_estimate_of_a_prompt_holds_a_page_of_it_at_a_time(
    database: Database, request: pytest.FixtureRequest
) -> None:
    text = "word " * 200_000
    generation = await branch_of(database, 16, text)
    peak_bytes = request.getfixturevalue("peak_bytes")

    tokens = await database.read(prompt_tokens, generation)

    assert tokens >= 32 * len(text) // 4
    assert peak_bytes() < PAGES_BYTES


async def test_a_prompt_of_many_pages_has_every_message_once_and_in_order(
    database: Database, models: Models
) -> None:
    text = "word " * (PROMPT_PAGE_CHARS // 50)
    generation = await branch_of(database, 20, text)

    branch = await database.read(
        lambda session: list(prompt_branch(session, generation.question_id, limit=2_000))
    )
    limited = await database.read(
        lambda session: list(prompt_branch(session, generation.question_id, limit=30))
    )

    texts = [message.parts[0]["text"] for message in branch]
    assert texts == ["last", *[text] * 40, "answer", "first"]
    assert [message.role for message in branch[::2]] == [Role.USER] * 22
    assert limited == branch[:30]


async def test_others_can_write_while_a_prompt_is_read(
    database: Database, models: Models, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not url.startswith("sqlite"):
        pytest.skip("only SQLite has one writer")
    generation = await branch_of(database, 1, "word")
    read = claiming.prompt_branch
    written = 0

    def write_meanwhile(*args: Any, **options: Any) -> Any:
        nonlocal written
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=0)) as other, other:
            written += other.execute("UPDATE generation SET beat = beat + 1").rowcount
        return read(*args, **options)

    monkeypatch.setattr(claiming, "prompt_branch", write_meanwhile)
    await claimed(database, generation, models)

    assert written > 0


class Flapping:
    """A database that is away for the first reads."""

    def __init__(self, database: Database, failures: int) -> None:
        self.write, self._database, self._failures = database.write, database, failures

    async def read(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        self._failures -= 1
        if self._failures >= 0:
            raise DatabaseAway("restarting")
        return await self._database.read(fn, *args, **kwargs)


async def test_an_outage_between_claim_and_prompt_is_no_crash(
    database: Database, models: Models
) -> None:
    generation = await branch_of(database, 1, "word")

    prompt = await claimed(Flapping(database, 2), generation, models)

    assert prompt.request is not None
    stored = await database.read(lambda session: session.get_one(Generation, generation.id))
    assert (stored.owner, stored.attempt, stored.crashes) == ("worker", 1, 0)


async def test_a_claim_whose_prompt_cannot_be_read_is_given_back(
    database: Database, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: Any, **_options: Any) -> Any:
        raise ValueError("damaged")

    generation = await branch_of(database, 1, "word")
    monkeypatch.setattr(claiming, "prompt_branch", fail)

    with pytest.raises(ValueError, match="damaged"):
        await claimed(database, generation, models)

    stored = await database.read(lambda session: session.get_one(Generation, generation.id))
    assert (stored.owner, stored.attempt) == (None, 1)
