"""What a user brings from a guest is indexed again in small transactions, and nothing twice."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from server.history import search as searching
from server.history.claims import Ending, Fence, claim, settle
from server.history.database import Database, open_database
from server.history.guest_merge import _merge
from server.history.schema import migrate
from server.history.search import account_with_index_due, index_moved
from server.history.tables import SEARCH_ENTRIES as E
from server.history.tables import Account, Conversation, Status
from server.ids import Prefix, new_id
from server.verbs.ask import Regenerate
from server.verbs.inputs import AnswerOptions
from tests.installation import Installation
from tests.test_search import Conversations, key_of, parts

GUEST, USER = new_id(Prefix.ACCOUNT), new_id(Prefix.ACCOUNT)
ANSWERS = 5
LONG = "words " * 100


@pytest.fixture(
    params=[
        pytest.param("sqlite", marks=pytest.mark.quick),
        pytest.param("postgres", marks=pytest.mark.slow),
    ]
)
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """A database of each kind, with the accounts of a guest and of a user."""
    settings = (
        {"database": {"url": request.getfixturevalue("postgres").new_url()}}
        if request.param == "postgres"
        else {}
    )
    url = Installation(tmp_path, settings).settings.database_url
    (tmp_path / "data").mkdir()
    await migrate(url)
    async with open_database(url) as database:
        await database.write(
            lambda session: session.add_all([key_of(GUEST), Account(id=GUEST), Account(id=USER)])
        )
        yield database


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "MOVED_WORDS_MAX", 150)


async def write_as_guest(database: Database) -> list[str]:
    """Several answers in one conversation; their ids."""
    talk = Conversations(database, GUEST)
    first = await talk.ask("first", f"albatross {LONG}")
    answers = [first.message_id]
    for n in range(1, ANSWERS):
        place = {"conversation_id": first.conversation_id}
        answers.append((await talk.ask(f"more {n}", f"albatross {LONG}", **place)).message_id)
    return answers


async def indexed_words(database: Database) -> int:
    """How many words the index holds for the user."""
    query = select(func.coalesce(func.sum(E.c.length), 0)).where(E.c.account_id == USER)
    return await database.read(lambda session: int(session.execute(query).scalar_one()))


async def index_the_rest(database: Database) -> list[int]:
    """Lets the chore end its work; how many words each of its transactions indexed."""
    batches, before = [], await indexed_words(database)
    while account_id := await database.read(account_with_index_due):
        assert account_id == USER
        await database.write(index_moved, account_id)
        batches.append((after := await indexed_words(database)) - before)
        before = after
    return batches


async def test_a_large_history_is_indexed_in_small_transactions(database: Database) -> None:
    answers = await write_as_guest(database)

    await database.write(_merge, GUEST, USER)
    merged = await indexed_words(database)
    batches = await index_the_rest(database)

    largest = 150 + len(LONG.split()) + 1
    assert 0 < merged <= largest
    assert len(batches) > 1
    assert max(batches) <= largest
    assert await Conversations(database, USER).found("albatross") == set(answers)
    assert await Conversations(database, GUEST).found("albatross") == set()
    assert len(await Conversations(database, USER).find("albatross")) == ANSWERS


async def test_a_small_history_is_found_at_once(database: Database) -> None:
    generation = await Conversations(database, GUEST).ask("first", "a cormorant")

    await database.write(_merge, GUEST, USER)

    assert await Conversations(database, USER).found("cormorant") == {generation.message_id}


async def test_an_answer_that_is_written_again_meanwhile_is_indexed_once(
    database: Database,
) -> None:
    answers = await write_as_guest(database)
    request = Regenerate(answers[-1], AnswerOptions())
    generation = await Conversations(database, GUEST).request(request)
    claimed = await database.write(claim, generation.id, "worker")
    assert claimed is not None

    await database.write(_merge, GUEST, USER)
    ending = Ending(Status.COMPLETED, 9, parts("a cormorant instead"))
    await database.write(settle, Fence(generation.id, "worker", 1), GUEST, ending)
    await index_the_rest(database)

    assert [hit.message_id for hit in await Conversations(database, USER).find("cormorant")] == [
        generation.message_id
    ]
    assert await Conversations(database, USER).found("albatross") == set(answers)


async def test_the_users_changes_go_on_after_those_of_both_accounts(database: Database) -> None:
    generation = await Conversations(database, GUEST).ask("first", "answer")
    for _ in range(3):
        await Conversations(database, GUEST).ask("more", "answer")
    guest = await database.read(lambda session: session.get_one(Account, GUEST).change)

    await database.write(_merge, GUEST, USER)

    user, moved = await database.read(
        lambda session: (
            session.get_one(Account, USER).change,
            session.get_one(Conversation, generation.conversation_id).change,
        )
    )
    assert user == moved > guest > 0
