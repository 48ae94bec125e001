"""A branch of any length is read from both ends, page by page."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlmodel import Session

from server.history.database import Database, open_database
from server.history.keyset import Page, Slice
from server.history.messages import MessageRow
from server.history.schema import migrate
from server.history.tables import Account, Conversation, Generation
from server.history.tree import BranchPart, branch_pages
from server.ids import Prefix, new_id
from tests.history import grow
from tests.test_search import Conversations, key_of

pytestmark = pytest.mark.quick

ME = new_id(Prefix.ACCOUNT)
EXCHANGES = 5_500


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    url = f"sqlite:///{tmp_path}/test.db"
    await migrate(url)
    async with open_database(url) as database:
        await database.write(lambda session: session.add_all([Account(id=ME), key_of(ME)]))
        yield database


async def page_of(database: Database, leaf: str, part: Slice) -> Page[MessageRow]:
    wanted = BranchPart(leaf, part)
    page = (await database.read(branch_pages, [wanted]))[wanted]
    assert isinstance(page, Page)
    return page


async def long_branch(database: Database) -> tuple[Generation, str]:
    """The first answer of a branch of 11,000 more messages, and the last of these."""
    first = await Conversations(database, ME).ask("first", "answer")
    await database.write(grow, first.conversation_id, first.message_id, EXCHANGES, "x")
    leaf = await database.read(_shown, first.conversation_id)
    return first, leaf


def _shown(session: Session, conversation_id: str) -> str:
    shown = session.get_one(Conversation, conversation_id).shown_message_id
    assert shown is not None
    return shown


async def test_a_branch_of_any_length_begins_at_its_root(database: Database) -> None:
    first, leaf = await long_branch(database)

    page = await page_of(database, leaf, Slice(3))
    following = await page_of(database, leaf, Slice(2, after=first.question_id))

    assert [row.message.id for row in page.items[:2]] == [first.question_id, first.message_id]
    assert (page.has_previous, page.has_next) == (False, True)
    assert [row.message.id for row in following.items] == [
        first.message_id,
        page.items[2].message.id,
    ]
    assert (following.has_previous, following.has_next) == (True, True)


async def test_a_branch_of_any_length_is_read_up_to_its_root(database: Database) -> None:
    first, leaf = await long_branch(database)
    third = (await page_of(database, leaf, Slice(3))).items[2].message.id

    last = await page_of(database, leaf, Slice(2, backwards=True, after=first.question_id))
    top = await page_of(database, third, Slice(5, backwards=True, before=third))

    assert last.items[-1].message.id == leaf
    assert (last.has_previous, last.has_next) == (True, False)
    assert [row.message.id for row in top.items] == [first.question_id, first.message_id]
    assert (top.has_previous, top.has_next) == (False, True)
