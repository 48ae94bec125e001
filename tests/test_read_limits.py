"""A read on SQLite ends after a time, and writes nothing; a stop between two steps is not lost."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlmodel import Session

from server.command.waiting import wait_for_services
from server.history import database as databases
from server.history.changes import account_changes
from server.history.database import Database, DatabaseAway, open_database
from server.history.generations import request_cancel
from server.history.schema import migrate
from server.history.tables import Account
from server.ids import Prefix, new_id
from server.settings import Settings
from server.verbs.ask import Send
from server.verbs.inputs import SendMessage
from tests.installation import Installation
from tests.test_search import Conversations, key_of

pytestmark = pytest.mark.quick

ME = new_id(Prefix.ACCOUNT)
ENDLESS = text(
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "data").mkdir()
    return Installation(tmp_path, {}).settings


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    await migrate(settings.database_url)
    async with open_database(settings.database_url) as database:
        await database.write(lambda session: session.add_all([Account(id=ME), key_of(ME)]))
        yield database


def read_for_ever(session: Session) -> object:
    return session.execute(ENDLESS).scalar()


async def test_a_read_without_end_is_interrupted_and_the_next_works(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(databases, "SQLITE_READ_MAX_S", 0.05)
        with pytest.raises(DatabaseAway, match="interrupted"):
            await database.read(read_for_ever)

    assert await database.read(account_changes, [ME]) == {ME: 0}


async def test_a_read_cannot_write(database: Database) -> None:
    with pytest.raises(DatabaseAway, match="readonly"):
        await database.read(lambda session: session.add(Account(id=new_id(Prefix.ACCOUNT))))


async def test_what_is_cancelled_already_is_no_change_of_the_account(database: Database) -> None:
    generation = await Conversations(database, ME).request(Send(SendMessage(text="hi")))
    await database.write(request_cancel, generation.id, ME)
    before = await database.read(account_changes, [ME])

    again = await database.write(request_cancel, generation.id, ME)

    assert again.cancel_requested_at is not None
    assert await database.read(account_changes, [ME]) == before


class StoppedWhileTheWaitEnds(asyncio.Event):
    """A stop that comes when the services are there and before the process goes on."""

    async def wait(self) -> bool:  # type: ignore[override]
        try:
            return await super().wait()
        finally:
            self.set()


@pytest.mark.usefixtures("database")
async def test_a_stop_that_comes_as_the_wait_ends_is_not_lost(settings: Settings) -> None:
    assert not await wait_for_services(settings, StoppedWhileTheWaitEnds(), redis_too=False)
