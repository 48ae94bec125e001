"""Frequent statements find their rows by an index, however long the history is."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import Engine, event

from server.history import (
    accounts,
    changes,
    claims,
    contents,
    conversations,
    export,
    feed,
    generations,
    messages,
    search,
    titles,
    tree,
    turns,
    workers,
)
from server.history.database import in_transaction, sqlite_engine
from server.history.keyset import Slice
from server.history.schema import REVISION, _migrate_sqlite
from server.history.tables import Account
from server.ids import Prefix, new_id

pytestmark = pytest.mark.quick

ACCOUNT, CONVERSATION, MESSAGE, GENERATION = (
    new_id(p) for p in (Prefix.ACCOUNT, Prefix.CONVERSATION, Prefix.MESSAGE, Prefix.GENERATION)
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    url = f"sqlite:///{tmp_path_factory.mktemp('plans') / 'plans.db'}"
    assert _migrate_sqlite(url) == (0, REVISION)
    engine = sqlite_engine(url, begin="BEGIN IMMEDIATE")
    in_transaction(engine, lambda session: session.add(Account(id=ACCOUNT)))
    yield engine
    engine.dispose()


# Intermediate results of the statement itself.
BOUNDED = (
    "SCAN ancestors",
    "SCAN wanted",
    "SCAN groups",
    "SCAN up",
    "SCAN (",
    "SCAN anon",
    "SCAN CONSTANT",
)

HOT: dict[str, Any] = {
    "sweep": claims.open_rows,
    "sweep of the cancelled": lambda session: claims.open_rows(session, cancelled_only=True),
    "beat": lambda session: workers.beat(session, "worker", 1),
    "what a worker owns": lambda session: claims.owned_rows(session, "worker"),
    "claim": lambda session: claims.claim(session, GENERATION, "worker"),
    "active limit": lambda session: turns.count_active(session, ACCOUNT),
    "titles that are due": titles.due_titles,
    "what is to be indexed": search.account_with_index_due,
    "what came from a guest": lambda session: search.index_moved(session, ACCOUNT),
    "a title": lambda session: titles.opening_of(session, CONVERSATION),
    "list": lambda session: conversations.page_of_conversations(
        session, ACCOUNT, conversations.Listing(), Slice(50)
    ),
    "active answers": lambda session: generations.active_ids(session, [CONVERSATION]),
    "ends of answers": lambda session: generations.settled_generations(session, [GENERATION]),
    "changes of a page": lambda session: feed.changes_since(
        session, feed.Scope(ACCOUNT, CONVERSATION), feed.FeedPosition(5)
    ),
    "accounts of pages": lambda session: changes.account_changes(session, [ACCOUNT]),
    "streams' credentials": lambda session: accounts.still_valid(session, ["key_x"], ["x"]),
    "nodes": lambda session: messages.messages_by_id(session, ACCOUNT, [MESSAGE]),
    "last messages": lambda session: messages.last_messages(session, ACCOUNT, [CONVERSATION]),
    "siblings": lambda session: tree.sibling_ids(session, ACCOUNT, [MESSAGE]),
    "contents": lambda session: contents.stored_contents(
        session, ACCOUNT, [MESSAGE, GENERATION], 1_000
    ),
    "system prompts": lambda session: contents.system_prompts(
        session, ACCOUNT, [CONVERSATION], 1_000
    ),
    "generations": lambda session: generations.generations_by_id(session, ACCOUNT, [GENERATION]),
    "search": lambda session: search.search(session, ACCOUNT, "tide", offset=0, limit=20),
    "an export's page": lambda session: export.exported_rows(session, CONVERSATION, None),
    "an export's branch": lambda session: tree.branch(session, MESSAGE, limit=200),
    "a model's prompt": lambda session: list(tree.prompt_branch(session, MESSAGE, limit=200)),
    "what a prompt leaves out": lambda session: tree.count_sendable(session, MESSAGE),
    "a dead worker's rows": lambda session: workers.release_dead(session, "worker"),
}


@pytest.mark.parametrize("name", HOT)
def test_no_statement_scans_a_whole_table(engine: Engine, name: str) -> None:
    statements: list[tuple[str, Any]] = []

    def note(
        _c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool
    ) -> None:
        statements.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        in_transaction(engine, HOT[name])
    finally:
        event.remove(engine, "before_cursor_execute", note)

    explained = [
        each
        for each in statements
        if each[0].lstrip().startswith(("SELECT", "UPDATE", "WITH", "DELETE"))
    ]
    assert explained
    with closing(sqlite3.connect(str(engine.url.database))) as connection:
        for statement, parameters in explained:
            for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters):
                by_index = "INDEX" in step or step.startswith(BOUNDED)
                assert by_index or not step.startswith("SCAN"), (statement, step)
                whole_account = "conversation USING" in step and "(account_id=?)" in step
                assert not whole_account or name == "list", (statement, step)
