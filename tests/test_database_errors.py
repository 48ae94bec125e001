"""Which database errors are outages, where a retry may help, and which are program faults."""

import sqlite3
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlmodel import Session

from server.history.database import Collision, Database, DatabaseAway, _raise, open_database
from tests.postgres import Postgres

DBAPI: Any = PGDialect_asyncpg.import_dbapi()


def wrapped(error: Exception, *, invalidated: bool = False) -> DBAPIError:
    """An error of asyncpg as SQLAlchemy raises it."""
    kinds = DBAPI._asyncpg_error_translate
    kind = next(kinds[each] for each in type(error).__mro__ if each in kinds)
    orig = kind(str(error), error)
    orig.__cause__ = error
    return DBAPIError("SELECT 1", {}, orig, connection_invalidated=invalidated)


AWAY = {
    "no connection": wrapped(asyncpg.ConnectionDoesNotExistError("connection was closed")),
    "closed": wrapped(asyncpg.InterfaceError("connection is closed")),
    "closed under a transaction": wrapped(
        asyncpg.InterfaceError(
            "cannot call Transaction.commit(): the underlying connection is closed"
        )
    ),
    "closed in the middle": wrapped(
        asyncpg.InternalClientError("unexpected state"), invalidated=True
    ),
    "shutting down": wrapped(asyncpg.AdminShutdownError("terminating connection")),
    "starting": wrapped(asyncpg.CannotConnectNowError("the database system is starting up")),
    "no connections left": wrapped(asyncpg.TooManyConnectionsError("sorry, too many clients")),
    "disk full": wrapped(asyncpg.DiskFullError("could not extend file")),
    "replica": wrapped(asyncpg.ReadOnlySQLTransactionError("cannot execute UPDATE")),
    "refused": ConnectionRefusedError("Connect call failed"),
    "reset": ConnectionResetError(),
    "statement timeout": TimeoutError(),
    "pool": PoolTimeoutError("QueuePool limit"),
    "SQLite locked": DBAPIError("", {}, sqlite3.OperationalError("database is locked")),
    "SQLite full": DBAPIError("", {}, sqlite3.OperationalError("database or disk is full")),
}
FAULTS = {
    "a value of the wrong type": wrapped(asyncpg.DataError("invalid input for query argument $1")),
    "arguments missing": wrapped(
        asyncpg.InterfaceError("the server expects 2 arguments for this query, 1 was passed")
    ),
    "two statements at once": wrapped(
        asyncpg.InterfaceError("cannot perform operation: another operation is in progress")
    ),
    "an unsupported feature": wrapped(asyncpg.UnsupportedClientFeatureError("not supported")),
    "the state of the client": wrapped(asyncpg.InternalClientError("unexpected state")),
    "syntax": wrapped(asyncpg.PostgresSyntaxError("syntax error")),
    "no table": wrapped(asyncpg.UndefinedTableError("relation does not exist")),
    "a duplicate": wrapped(asyncpg.UniqueViolationError("duplicate key")),
    "SQLite syntax": DBAPIError("", {}, sqlite3.OperationalError("no such table: x")),
    "SQLite duplicate": DBAPIError("", {}, sqlite3.IntegrityError("UNIQUE constraint failed")),
}


@pytest.mark.parametrize("error", AWAY.values(), ids=AWAY)
def test_connection_errors_are_outages(error: Exception) -> None:
    with pytest.raises(DatabaseAway) as away:
        _raise(error)

    assert not isinstance(away.value, Collision)


@pytest.mark.parametrize("error", FAULTS.values(), ids=FAULTS)
def test_errors_that_would_recur_are_raised_unchanged(error: Exception) -> None:
    with pytest.raises(DBAPIError) as fault:
        _raise(error)

    assert fault.value is error


def test_serialization_failures_and_deadlocks_are_collisions() -> None:
    for error in (asyncpg.SerializationError("could not"), asyncpg.DeadlockDetectedError("dead")):
        with pytest.raises(Collision):
            _raise(wrapped(error))


@pytest.fixture
async def database(postgres: Postgres) -> AsyncIterator[Database]:
    async with open_database(
        postgres.new_url().replace("postgresql://", "postgresql+asyncpg://")
    ) as database:
        yield database


def missing_argument(session: Session) -> None:
    session.connection().exec_driver_sql("SELECT $1::int + $2::int", (1,))


def number_out_of_range(session: Session) -> None:
    session.connection().exec_driver_sql("SELECT $1::int", (2**40,))


def end_own_connection(session: Session) -> None:
    session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))


@pytest.mark.slow
@pytest.mark.parametrize("fault", [missing_argument, number_out_of_range])
async def test_a_program_fault_on_postgresql_is_not_an_outage(
    database: Database, fault: Any
) -> None:
    with pytest.raises(DBAPIError):
        await database.read(fault)

    assert await database.read(lambda session: session.execute(text("SELECT 1")).scalar()) == 1


@pytest.mark.slow
async def test_a_terminated_connection_is_an_outage_and_the_next_one_works(
    database: Database,
) -> None:
    with pytest.raises(DatabaseAway):
        await database.read(end_own_connection)

    assert await database.read(lambda session: session.execute(text("SELECT 1")).scalar()) == 1


@pytest.mark.slow
async def test_a_stopped_postgresql_is_an_outage(database: Database, postgres: Postgres) -> None:
    await database.read(lambda session: session.execute(text("SELECT 1")))
    postgres.stop()
    try:
        for _ in range(2):  # on the old connection, on a new one
            with pytest.raises(DatabaseAway):
                await database.read(lambda session: session.execute(text("SELECT 1")))
    finally:
        postgres.start()
