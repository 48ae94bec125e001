"""Users have no roles: the migration drops the flag of an earlier schema and keeps the users."""

import sqlite3
from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlmodel import Session, select

from server.history.database import sqlite_engine
from server.history.schema import migrate
from server.history.tables import User

REVISION_BEFORE = "0006"


async def test_users_of_an_earlier_schema_are_kept(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'tidemark.db'}"
    config = Config()
    config.set_main_option("script_location", "server:history/migrations")
    engine = sqlite_engine(url, begin="BEGIN IMMEDIATE")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, REVISION_BEFORE)
    engine.dispose()
    with closing(sqlite3.connect(tmp_path / "tidemark.db")) as database:
        database.executescript(
            """
            INSERT INTO account (id, name, change, created_at)
                 VALUES ('acct_1', 'ada', 0, '2026-01-01 00:00:00');
            INSERT INTO app_user (id, account_id, email, admin, created_at)
                 VALUES ('user_1', 'acct_1', 'ada@example.org', 1, '2026-01-01 00:00:00');
            """
        )

    await migrate(url)

    engine = sqlite_engine(url, begin="BEGIN")
    with Session(engine) as session:
        [user] = session.exec(select(User)).all()
        assert (user.id, user.email, user.account_id) == ("user_1", "ada@example.org", "acct_1")
        session.add(User(id="user_2", account_id="acct_1", email="bob@example.org"))
        session.commit()
    engine.dispose()
