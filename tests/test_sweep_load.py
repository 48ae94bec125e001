"""A sweep over 100,000 queued answers reads few rows, uses indexes, and detects a death in time."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlmodel import Session

from server.generate.heartbeat import Watch, beat_or_register
from server.history.claims import OPEN_ROWS_MAX, open_rows
from server.history.database import Database, open_database
from server.history.schema import migrate
from server.history.tables import GENERATIONS, Account, Conversation, Generation, Status, now
from server.history.workers import declare_dead, register
from server.ids import Prefix, new_id
from server.settings import Settings
from server.worker import build_worker
from tests.databases import Sql, both_databases, on_sqlite
from tests.system import System

pytestmark = both_databases

QUEUED, UNSEALED, RUNNING = 100_000, 5_000, 20
DEAD, STRAY = "wrk_dead", "wrk_stray"
LEASE_S = 2.0
INDEXES = {
    "ix_generation_running",
    "ix_generation_queued",
    "ix_generation_cancelling",
    "ix_generation_unsealed",
}


def overload(session: Session) -> None:
    """Add queued answers, ended answers with an open log, and running answers of dead owners.

    One of these is a registered worker.
    """
    register(session, DEAD, 7, LEASE_S)
    account = Account(id=new_id(Prefix.ACCOUNT))
    session.add(account)
    session.flush()
    conversation = Conversation(id=new_id(Prefix.CONVERSATION), account_id=account.id, model="demo")
    session.add(conversation)
    session.flush()
    like = Generation(
        id="",
        account_id=account.id,
        conversation_id=conversation.id,
        question_id="",
        message_id="",
        model="demo",
    ).model_dump()
    running = {"status": Status.RUNNING, "owner": DEAD, "attempt": 1, "beat": 7}
    ended = {"status": Status.COMPLETED, "owner": DEAD, "attempt": 1, "finished_at": now()}
    stray = running | {"owner": STRAY}
    kinds = [{}] * QUEUED + [ended] * UNSEALED + [running] * RUNNING + [stray] * RUNNING
    rows = [like | kind | {"id": new_id(Prefix.GENERATION)} for kind in kinds]
    for start in range(0, len(rows), 1_000):
        session.execute(GENERATIONS.insert(), rows[start : start + 1_000])


@pytest.fixture(scope="module")
def settings(sql: Sql, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The settings of an installation with an overloaded database and no processes."""
    made = System(tmp_path_factory.mktemp("overload"), sql.settings()).settings

    async def fill() -> None:
        made.data.dir.mkdir(exist_ok=True)
        await migrate(made.database_url)
        async with open_database(made.database_url) as database:
            await database.write(overload)

    asyncio.run(fill())
    return made


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    async with open_database(settings.database_url) as database:
        yield database


async def test_a_sweep_reads_few_rows(database: Database) -> None:
    rows = await database.read(open_rows)

    running = [row for row in rows if row.status is Status.RUNNING]
    assert {row.seen.owner for row in running} == {STRAY}
    assert len(running) == RUNNING
    assert len([row for row in rows if row.status is Status.QUEUED]) == OPEN_ROWS_MAX
    assert len([row for row in rows if row.status is Status.COMPLETED]) == OPEN_ROWS_MAX


async def test_every_statement_of_a_sweep_uses_its_index(database: Database, sql: Sql) -> None:
    if sql.name == "PostgreSQL":
        await database.write(lambda session: session.execute(text("ANALYZE generation")) and None)

    plans = await database.read(plans_of_a_sweep)

    assert len(plans) == len(INDEXES) + 1  # running answers are read in two ways
    for plan in plans:
        assert any(index in plan for index in INDEXES), plan
        assert "Seq Scan" not in plan


def plans_of_a_sweep(session: Session) -> list[str]:
    """The plans of the statements that `open_rows` runs."""
    statements: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            statements.append((statement, parameters))

    engine: Any = session.get_bind()
    event.listen(engine, "before_cursor_execute", note)
    try:
        open_rows(session)
    finally:
        event.remove(engine, "before_cursor_execute", note)
    explain = "EXPLAIN QUERY PLAN" if engine.dialect.name == "sqlite" else "EXPLAIN"
    return [
        "\n".join(
            str(row)
            for row in session.connection().exec_driver_sql(f"{explain} {statement}", parameters)
        )
        for statement, parameters in statements
    ]


@on_sqlite
async def test_a_death_is_detected_in_time(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, watch = set[str](), Watch(LEASE_S)

    async def look(at: float) -> list[Any]:
        lives, _ = await database.write(beat_or_register, "wrk_alive", int(at * 1000) + 1, LEASE_S)
        return watch.look([life for life in lives if life.name == DEAD], at)

    for beats in range(4):
        assert not await look(beats * LEASE_S / 4)
    [dead] = await look(LEASE_S)
    released = await database.write(declare_dead, dead.name, dead.beat)
    async with build_worker(settings, "wrk_alive") as worker:
        ownership = worker._ownership

        async def take(generation_id: str) -> None:
            taken.add(generation_id)

        monkeypatch.setattr(ownership, "take", take)
        await ownership._sweep()
        await asyncio.sleep(0)

    assert len(released) == RUNNING
    assert taken == set(released)
