"""The schema: checking its revision, waiting for it, and migrating to it with Alembic."""

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from server.errors import StartError
from server.history.database import Database, DatabaseAway, dump_json, sqlite_engine
from server.history.postgres import postgres_engine
from server.logs import log

if TYPE_CHECKING:
    from alembic.config import Config

REVISION = 10
"""The number of the newest migration of this program; they are numbered `0001`, `0002`, …"""

WAIT_S = 60.0
WRITE_TIMEOUT_S = 2.0
ADVISORY_LOCK = 7_106_311
_NOT_WRITABLE = ("full", "no space", "disk i/o", "readonly", "read-only")


def schema_revision(session: Session) -> int:
    """The number of the newest migration that the database has; 0 for none."""
    try:
        with session.begin_nested():
            return int(
                session.execute(text("SELECT max(version_num) FROM alembic_version")).scalar() or 0
            )
    except DBAPIError as error:
        if "alembic_version" in str(error):
            return 0
        raise


def schema_is_current(session: Session) -> bool:
    """Whether the schema is at least as new as this program, which can then use it."""
    return schema_revision(session) >= REVISION


async def write_refusal(database: Database) -> str:
    """Why nothing can be written although the database answers, or an empty string."""
    try:
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await database.write(_write_something)
    except DatabaseAway as error:
        if any(words in error.reason.lower() for words in _NOT_WRITABLE):
            return f"{error.reason}."
    except TimeoutError:
        pass  # busy, or unavailable
    return ""


def _write_something(session: Session) -> None:
    """A commit that reaches the disk, and changes nothing that anything reads."""
    if session.get_bind().dialect.name == "sqlite":
        version = session.execute(text("PRAGMA user_version")).scalar_one()
        session.execute(text(f"PRAGMA user_version = {(version + 1) % 2**31}"))
    else:
        session.execute(text("SELECT txid_current()"))


async def wait_for_schema(database: Database, wait_s: float = WAIT_S) -> None:
    """Waits until the database has a current schema; raises StartError after `wait_s`."""
    deadline, reason, logged = monotonic() + wait_s, "no answer", ""
    while True:
        try:
            async with asyncio.timeout(max(0.1, deadline - monotonic())):
                revision = await database.read(schema_revision)
            if revision >= REVISION:
                return
            reason = (
                f"its schema is at revision {revision}, this program needs {REVISION}: "
                "run `tidemark migrate`"
            )
        except DatabaseAway as error:
            reason = error.reason
        except TimeoutError:
            reason = "no answer"
        if monotonic() > deadline:
            raise StartError(f"The database was not ready after {wait_s:g} s: {reason}.")
        if reason != logged:
            log.info("waiting_for_database", reason=reason)
            logged = reason
        await asyncio.sleep(0.05)


async def migrate(url: str) -> tuple[int, int]:
    """Migrates the database at `url`; returns the revisions before and after. Raises StartError."""
    try:
        if url.startswith("sqlite"):
            return await asyncio.to_thread(_migrate_sqlite, url)
        engine = postgres_engine(url, json_serializer=dump_json)
        try:
            async with engine.begin() as connection:
                await connection.execute(text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))
                return await connection.run_sync(_upgrade)
        finally:
            await engine.dispose()
    except (DBAPIError, OSError) as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise StartError(f"The database could not be migrated: {reason}.") from error


def _migrate_sqlite(url: str) -> tuple[int, int]:
    engine = sqlite_engine(url, begin="BEGIN IMMEDIATE")
    try:
        with engine.begin() as connection:
            return _upgrade(connection)
    finally:
        engine.dispose()


def _upgrade(connection: Connection) -> tuple[int, int]:
    with Session(connection) as session:
        before = schema_revision(session)
    if before >= REVISION:
        return before, before
    # Alembic takes a tenth of a second to import, and most starts do not need it.
    from alembic import command

    command.upgrade(alembic_config(connection), "head")
    return before, REVISION


def alembic_config(connection: Connection) -> "Config":
    """Alembic's configuration for the migrations of this program on an open connection."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "server:history/migrations")
    config.attributes["connection"] = connection
    return config
