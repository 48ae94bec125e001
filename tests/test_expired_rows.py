"""Expired rows, and only these, are deleted in batches."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlmodel import Session, col, select

from server.history.chores import delete_expired
from server.history.database import Database, open_database
from server.history.schema import migrate
from server.history.tables import (
    Account,
    ApiKey,
    BrowserSession,
    Idempotency,
    SignInLink,
    User,
    now,
)
from tests.postgres import Postgres


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    url = f"sqlite:///{tmp_path / 'tidemark.db'}"
    if request.param == "postgres":
        postgres: Postgres = request.getfixturevalue("postgres")
        url = postgres.new_url().replace("postgresql://", "postgresql+asyncpg://")
    await migrate(url)
    async with open_database(url) as database:
        yield database


def fill(session: Session, count: int) -> None:
    """Add this many expired rows of each kind, and one of each that is kept."""
    session.add(Account(id="acct_x"))
    session.flush()
    session.add(User(id="user_x", account_id="acct_x", email="x@example.org"))
    session.flush()
    for n in range(count + 1):
        old = timedelta(hours=49 if n < count else 23)
        at, name = now() - old, f"{n}"
        session.add(BrowserSession(sha256=name, account_id="acct_x", expires_at=at))
        session.add(SignInLink(sha256=name, user_id="user_x", expires_at=at))
        session.add(
            Idempotency(
                account_id="acct_x",
                operation="send",
                key=name,
                body_sha256="",
                generation_id="",
                created_at=at,
            )
        )


def left(session: Session) -> list[int]:
    tables = ("browser_session", "sign_in_link", "idempotency")
    return [session.execute(text(f"SELECT count(*) FROM {name}")).scalar_one() for name in tables]


async def test_expired_rows_are_deleted_in_batches_until_none_is_left(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.history.chores.BATCH", 10)
    await database.write(fill, 25)

    steps = [(await database.write(delete_expired), await database.read(left)) for _ in range(4)]

    assert steps == [
        (True, [16] * 3),
        (True, [6] * 3),
        (False, [1] * 3),
        (False, [1] * 3),
    ]


async def test_rows_that_have_not_expired_are_kept(database: Database) -> None:
    await database.write(fill, 3)

    assert await database.write(delete_expired) is False

    def kept(session: Session) -> list[str]:
        return list(session.exec(select(col(Idempotency.key))))

    assert await database.read(kept) == ["3"]


async def test_keys_of_guests_whose_session_has_expired_are_revoked(database: Database) -> None:
    def fill_keys(session: Session) -> None:
        for name in ("gone", "here", "user", "local"):
            session.add(Account(id=name))
            session.flush()
            session.add(ApiKey(id=name, account_id=name, name="", prefix="", sha256=name))
        session.add(User(id="user", account_id="user", email="y@example.org"))
        for name, age in (("gone", 1), ("here", 1), ("user", 1), ("here", -1)):
            expires_at = now() - timedelta(seconds=100 * age)
            sha256 = f"{name}{age}"
            session.add(BrowserSession(sha256=sha256, account_id=name, expires_at=expires_at))

    def revoked(session: Session) -> list[str]:
        return list(session.exec(select(ApiKey.id).where(col(ApiKey.revoked_at).is_not(None))))

    await database.write(fill_keys)

    await database.write(delete_expired)

    assert await database.read(revoked) == ["gone"]
