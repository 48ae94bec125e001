"""Migrations: every earlier revision can be upgraded, and new columns break no old migration."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import Session

import server.history.migrations.versions as versions
from server.history import search as searching
from server.history.database import dump_json, sqlite_engine
from server.history.schema import REVISION, alembic_config, migrate, schema_revision
from server.history.search import Hit, search
from server.history.tables import Conversation, Generation, Message
from server.ids import Prefix, new_id
from tests.postgres import Postgres
from tests.schema_differences import differences

VERSIONS = Path(next(iter(versions.__path__)))
ACCOUNT = new_id(Prefix.ACCOUNT)
AT = "2026-01-02 03:04:05.000006"
PARTS = '[{"type": "text", "text": "%s"}]'
QUESTIONS = 300
"""More than the migration of the search index reads at once."""

ADDS_A_COLUMN = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "{new}", "{newest}"


def upgrade() -> None:
    for table in ("conversation", "message", "generation", "search_entry"):
        op.add_column(
            table, sa.Column("language", sa.String(), nullable=False, server_default="en")
        )
"""


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a new, empty database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'tidemark.db'}"
    else:
        postgres: Postgres = request.getfixturevalue("postgres")
        yield postgres.new_url().replace("postgresql://", "postgresql+asyncpg://")


async def on(url: str, fn: Callable[[Connection], Any]) -> Any:
    """Run `fn` in one transaction and return its result."""
    if url.startswith("sqlite"):
        engine = sqlite_engine(url, begin="BEGIN IMMEDIATE")
        try:
            with engine.begin() as connection:
                return fn(connection)
        finally:
            engine.dispose()
    asynchronous = create_async_engine(url, json_serializer=dump_json)
    try:
        async with asynchronous.begin() as connection:
            return await connection.run_sync(fn)
    finally:
        await asynchronous.dispose()


def upgrade(connection: Connection, revision: str, further: Path | None = None) -> None:
    """Migrate to a revision; `further` is a folder with additional migrations."""
    config = alembic_config(connection)
    if further is not None:
        config.set_main_option("path_separator", "newline")
        config.set_main_option("version_locations", f"{VERSIONS}\n{further}")
    command.upgrade(config, revision)


def fill(connection: Connection) -> dict[str, str]:
    """Add an account with a conversation of two questions and an answer.

    Only columns of the first revision are used.
    """
    ids = {name: new_id(Prefix.MESSAGE) for name in ("question", "answer")}
    ids |= {"conversation": new_id(Prefix.CONVERSATION), "generation": new_id(Prefix.GENERATION)}
    conversation, question, answer = (ids[key] for key in ("conversation", "question", "answer"))
    rows = [
        f"account (id, name, change, created_at) VALUES ('{ACCOUNT}', 'me', 3, '{AT}')",
        (
            "conversation (id, account_id, title, titled_by_person, pinned, archived, "
            "model, metadata,"
            f" created_at, updated_at, change) VALUES ('{conversation}', '{ACCOUNT}', "
            "'Tides of Dover',"
            f" true, false, false, 'demo', '{{}}', '{AT}', '{AT}', 1)"
        ),
        _message(conversation, question, "user", f"'{PARTS % 'When is high water in Zürich?'}'"),
        _message(conversation, answer, "assistant", "NULL", f"'{ids['generation']}'"),
        (
            f"generation (id, account_id, conversation_id, question_id, message_id, model, options,"
            f" status, attempt, crashes, beat, parts, seq, messages_left_out, sealed, created_at)"
            f" VALUES ('{ids['generation']}', '{ACCOUNT}', '{conversation}', "
            f"'{question}', '{answer}',"
            f" 'demo', '{{}}', 'completed', 1, 0, 0, "
            f"'{PARTS % 'At noon in the harbour.'}', 9, 0, true,"
            f" '{AT}')"
        ),
        *(
            _message(conversation, new_id(Prefix.MESSAGE), "user", f"'{PARTS % 'cormorant'}'")
            for _ in range(QUESTIONS)
        ),
    ]
    for row in rows:
        connection.exec_driver_sql(f"INSERT INTO {row}")
    return ids


def _message(conversation: str, id: str, role: str, parts: str, generation: str = "NULL") -> str:
    return (
        "message (id, conversation_id, position, role, parts, generation_id, metadata, created_at,"
        f" change) VALUES ('{id}', '{conversation}', 0, '{role}', {parts}, {generation}, '{{}}',"
        f" '{AT}', 2)"
    )


def found(connection: Connection, query: str) -> list[Hit]:
    with Session(connection) as session:
        return search(session, ACCOUNT, query, offset=0, limit=1_000)


def read(connection: Connection, ids: dict[str, str]) -> tuple[str, Any, Any, Any]:
    """The values that the program reads from the rows."""
    with Session(connection) as session:
        conversation = session.get_one(Conversation, ids["conversation"])
        question = session.get_one(Message, ids["question"])
        generation = session.get_one(Generation, ids["generation"])
        return conversation.title, question.parts, generation.parts, generation.status


@pytest.mark.parametrize("start", range(REVISION + 1))
async def test_a_database_of_any_revision_can_be_upgraded(url: str, start: int) -> None:
    ids: dict[str, str] = {}
    if start:
        await on(url, lambda connection: upgrade(connection, f"{start:04}"))
        ids = await on(url, fill)

    migrated = await migrate(url)

    assert migrated == (start, REVISION)
    assert await on(url, differences) == []
    if start:
        title, question, answer, status = await on(url, lambda each: read(each, ids))
        assert (title, status) == ("Tides of Dover", "completed")
        assert question[0]["text"] == "When is high water in Zürich?"
        assert answer[0]["text"] == "At noon in the harbour."


@pytest.mark.parametrize("start", [1, 2, 3])
async def test_conversations_older_than_the_search_index_are_found(url: str, start: int) -> None:
    await on(url, lambda connection: upgrade(connection, f"{start:04}"))
    ids = await on(url, fill)
    await migrate(url)

    assert await on(url, lambda each: found(each, "tides")) == [Hit(ids["conversation"], None)]
    assert await on(url, lambda each: found(each, '"water in zurich"')) == [
        Hit(ids["conversation"], ids["question"])
    ]
    assert await on(url, lambda each: found(each, "harb")) == [
        Hit(ids["conversation"], ids["answer"])
    ]
    assert len(await on(url, lambda each: found(each, "cormorant "))) == QUESTIONS


@pytest.mark.parametrize("start", range(REVISION + 1))
async def test_a_column_added_later_breaks_no_earlier_migration(
    url: str, start: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    further = tmp_path / "versions"
    further.mkdir()
    new = f"{REVISION + 1:04}"
    (further / f"{new}_language.py").write_text(
        ADDS_A_COLUMN.format(new=new, newest=f"{REVISION:04}")
    )
    for name in ("_NEW_ENTRY_SQLITE", "_NEW_ENTRY_POSTGRES"):
        written = str(getattr(searching, name)).replace("length", "language, length", 1)
        values = written.replace("?,", "?, 'en',", 1).replace(":length", "'en', :length", 1)
        monkeypatch.setattr(searching, name, values if "SQLITE" in name else text(values))
    if start:
        await on(url, lambda connection: upgrade(connection, f"{start:04}"))
        await on(url, fill)

    await on(url, lambda connection: upgrade(connection, "head", further))

    def revision_and_languages(connection: Connection) -> tuple[int, set[str]]:
        with Session(connection) as session:
            revision = schema_revision(session)
        return revision, set(connection.execute(text("SELECT language FROM message")).scalars())

    assert await on(url, revision_and_languages) == (REVISION + 1, {"en"} if start else set())


@pytest.mark.parametrize("path", sorted(VERSIONS.glob("0*.py")), ids=lambda path: path.stem)
def test_migrations_do_not_import_the_program(path: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).partition(".")[0])
        elif isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}

    assert not imported & {"server", "sqlmodel"}
