"""The database: runs a plain function of a Session as one transaction, on SQLite or PostgreSQL."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from math import inf
from random import uniform
from time import monotonic
from typing import Any, Concatenate, NamedTuple, NoReturn, ParamSpec, Protocol, TypeVar

import orjson
import stamina
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import Session

from server.errors import Unavailable
from server.history.changes import CHANGED, OnChange
from server.history.postgres import postgres_engine
from server.logs import log
from server.metrics import CONNECTIONS_REFUSED, POOL_TIMEOUTS

P = ParamSpec("P")
T = TypeVar("T")

SQLITE_READERS = 2
BUSY_TIMEOUT_S = 5
COLLISIONS_MAX = 3
CONNECT_PAUSE_S = 0.05
REPORT_EVERY_S = 10.0
SQLITE_READ_MAX_S = 30.0
SQLITE_STEPS_BETWEEN_CHECKS = 100_000  # about a millisecond


class DatabaseAway(Unavailable):
    """The database cannot be reached, is locked or is full.

    Either nothing was stored, or it is unknown whether it was.
    """

    def __init__(self, reason: str) -> None:
        super().__init__("The database is unavailable.")
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class Collision(DatabaseAway):
    """PostgreSQL rolled this transaction back because of another one; a retry can succeed."""


class TooManyConnections(DatabaseAway):
    """PostgreSQL has no connection left for this program. No statement was sent."""


class Pool(NamedTuple):
    """How many connections to PostgreSQL a process has, and how long a transaction waits for one."""

    size: int
    wait_s: float


DEFAULT_POOL = Pool(size=10, wait_s=5.0)


class Database(Protocol):
    """One transaction per call.

    An exception of `fn` rolls it back and is raised here. Raises DatabaseAway.
    """

    async def read(
        self, fn: Callable[Concatenate[Session, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...

    async def write(
        self, fn: Callable[Concatenate[Session, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...


async def until_available(run: Callable[..., Awaitable[T]], fn: Callable[..., T], *args: Any) -> T:
    """Runs `fn` by `database.read` or `.write`, again and again while the database is unavailable.

    The first try does without stamina, whose state is a reference cycle: one for every answer.
    """
    with suppress(DatabaseAway):
        return await run(fn, *args)
    async for attempt in stamina.retry_context(
        on=DatabaseAway, attempts=None, timeout=None, wait_initial=0.05, wait_max=1.0
    ):
        with attempt:
            return await run(fn, *args)
    raise AssertionError("there is no last attempt")


class SqliteDatabase:
    """SQLite: one writer thread, so that a process does not wait for its own locks; few readers."""

    def __init__(self, url: str, on_change: OnChange) -> None:
        self._on_change = on_change
        self._writing, self._reading = (
            sqlite_engine(url, begin="BEGIN IMMEDIATE"),
            sqlite_engine(url, begin="BEGIN", read_only=True),
        )
        self._writer = ThreadPoolExecutor(1, "sql-writer")
        self._readers = ThreadPoolExecutor(SQLITE_READERS, "sql-reader")

    async def read(
        self, fn: Callable[Concatenate[Session, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return await asyncio.get_running_loop().run_in_executor(
            self._readers, lambda: in_transaction(self._reading, fn, *args, **kwargs)
        )

    async def write(
        self, fn: Callable[Concatenate[Session, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        changed: dict[str, int] = {}
        result = await asyncio.get_running_loop().run_in_executor(
            self._writer,
            lambda: in_transaction(self._writing, _recording_changes(changed, fn), *args, **kwargs),
        )
        if changed:
            self._on_change(changed)
        return result

    def close(self) -> None:
        for threads in (self._writer, self._readers):
            threads.shutdown()
        self._writing.dispose()
        self._reading.dispose()


class PostgresDatabase:
    """PostgreSQL through asyncpg; functions run in a greenlet of SQLAlchemy."""

    def __init__(self, url: str, on_change: OnChange, pool: Pool) -> None:
        self._on_change, self._wait_s = on_change, pool.wait_s
        self._reported_at = -inf
        self._engine = postgres_engine(
            url,
            pool_size=pool.size,
            max_overflow=0,
            pool_timeout=pool.wait_s,
            json_serializer=dump_json,
            json_deserializer=orjson.loads,
        )

    async def write(
        self, fn: Callable[Concatenate[Session, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        for _ in range(COLLISIONS_MAX):
            try:
                return await self._run(fn, *args, **kwargs)
            except Collision:
                continue
        return await self._run(fn, *args, **kwargs)

    async def _run(
        self, fn: Callable[Concatenate[Session, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs `fn` once there is a connection: one that the server refuses may be free soon."""
        deadline = monotonic() + self._wait_s
        while True:
            try:
                return await self._transact(fn, *args, **kwargs)
            except TooManyConnections as error:
                self._report(error)
                if monotonic() > deadline:
                    raise
                await asyncio.sleep(CONNECT_PAUSE_S * uniform(0.5, 1.5))

    def _report(self, error: TooManyConnections) -> None:
        CONNECTIONS_REFUSED.inc()
        if monotonic() - self._reported_at > REPORT_EVERY_S:
            self._reported_at = monotonic()
            open_now = self._engine.pool.checkedout() + self._engine.pool.checkedin()  # type: ignore[attr-defined]  # of QueuePool
            log.warning("database_connections_refused", reason=error.reason, open=open_now)

    async def _transact(
        self, fn: Callable[Concatenate[Session, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        changed: dict[str, int] = {}
        recording: Any = _recording_changes(
            changed, fn
        )  # the stub of run_sync knows only the base Session
        try:
            async with (
                AsyncSession(
                    self._engine, sync_session_class=Session, expire_on_commit=False
                ) as session,
                session.begin(),
            ):
                result: T = await session.run_sync(recording, *args, **kwargs)
        except (DBAPIError, PoolTimeoutError, OSError, TimeoutError) as error:
            _raise(error)
        if changed:
            self._on_change(changed)
        return result

    read = write

    async def close(self) -> None:
        await self._engine.dispose()


@asynccontextmanager
async def open_database(
    url: str, on_change: OnChange = lambda _changed: None, *, pool: Pool = DEFAULT_POOL
) -> AsyncIterator[Database]:
    """The database at `url` (`Settings.database_url`), closed at the end. Opens no connection yet.

    `on_change` is called after every commit that changed something a page shows.
    """
    if url.startswith("sqlite"):
        sqlite = SqliteDatabase(url, on_change)
        try:
            yield sqlite
        finally:
            sqlite.close()
    else:
        postgres = PostgresDatabase(url, on_change, pool)
        try:
            yield postgres
        finally:
            await postgres.close()


def _recording_changes(
    changed: dict[str, int], fn: Callable[Concatenate[Session, P], T]
) -> Callable[Concatenate[Session, P], T]:
    """`fn`, recording in `changed` the accounts that it changes."""

    def run(session: Session, /, *args: P.args, **kwargs: P.kwargs) -> T:
        session.info[CHANGED] = changed
        return fn(session, *args, **kwargs)

    return run


def in_transaction(
    engine: Engine, fn: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Runs `fn` in one transaction of `engine`; raises DatabaseAway."""
    try:
        with Session(engine, expire_on_commit=False) as session, session.begin():
            return fn(session, *args, **kwargs)
    except (DBAPIError, PoolTimeoutError) as error:
        _raise(error)


def sqlite_engine(url: str, *, begin: str, read_only: bool = False) -> Engine:
    """An engine for SQLite in WAL mode whose transactions start with `begin`.

    With `read_only` it refuses to write, and a transaction that takes longer than SQLITE_READ_MAX_S
    is interrupted: a process has few readers, and the WAL grows while one reads.
    """
    engine = create_engine(
        url,
        hide_parameters=True,  # content must not be logged
        json_serializer=dump_json,
        json_deserializer=orjson.loads,
        connect_args={
            "timeout": BUSY_TIMEOUT_S,
            "isolation_level": None,
            "check_same_thread": False,
        },
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, record: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")
        if read_only:
            connection.execute("PRAGMA query_only=ON")
            connection.set_progress_handler(
                lambda: monotonic() > record.info[_DEADLINE], SQLITE_STEPS_BETWEEN_CHECKS
            )

    @event.listens_for(engine, "begin")
    def begin_transaction(connection: Any) -> None:
        connection.info[_DEADLINE] = monotonic() + SQLITE_READ_MAX_S
        connection.exec_driver_sql(begin)

    return engine


def dump_json(value: object) -> str:
    return orjson.dumps(value).decode()


def _raise(error: BaseException) -> NoReturn:
    """Raises Collision or DatabaseAway if a retry may succeed, and any other error as it is."""
    cause = getattr(error, "orig", None) or error
    reason = f"{type(cause).__name__}: {cause}".splitlines()[0]
    state = str(getattr(cause, "sqlstate", None) or "")
    if state == "53300":
        raise TooManyConnections(reason) from error
    if isinstance(cause, PoolTimeoutError):
        POOL_TIMEOUTS.inc()
        raise DatabaseAway("all connections of this process are in use") from error
    if state.startswith("40"):
        raise Collision(reason) from error
    if state in _STATEMENT_OF_ANOTHER:
        raise DatabaseAway(f"{reason}; {_POOLER_HINT}") from error
    if _is_away(error, cause):
        raise DatabaseAway(reason) from error
    raise error


def _is_away(error: BaseException, cause: BaseException) -> bool:
    """Whether the error is due to the database, not to the statement."""
    if isinstance(cause, sqlite3.Error):
        return any(words in str(cause) for words in _SQLITE_AWAY)
    if isinstance(cause, PoolTimeoutError | OSError | TimeoutError):
        return True
    if state := getattr(cause, "sqlstate", None):
        return state[:2] in _POSTGRES_AWAY or state == "25006"
    # asyncpg's own errors have no SQLSTATE. One about a value or about arguments would be the same
    # at every retry; one that comes with the end of the connection would not.
    invalidated = isinstance(error, DBAPIError) and error.connection_invalidated
    return invalidated or "connection is closed" in str(cause)


_DEADLINE = "read_deadline"
_STATEMENT_OF_ANOTHER = frozenset({"26000", "42P05"})
_POOLER_HINT = "behind a pooler in transaction mode, add pooler=transaction to database.url"
_SQLITE_AWAY = ("locked", "busy", "full", "unable to open", "disk I/O", "readonly", "interrupted")
_POSTGRES_AWAY = frozenset({"08", "53", "55", "57", "58"})
"""Classes of SQLSTATE: connection, resources, locks, operator intervention, system errors.
25006 comes from a server that has become a replica.
"""
