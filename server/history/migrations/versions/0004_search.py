"""Adds the search index of messages and titles, with the existing ones.

The tokenizer and the statements below are copies of the program's as they were at this revision. A
change of the tokenizer needs a migration of its own that rebuilds the index.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    sqlite = op.get_bind().dialect.name == "sqlite"
    op.create_table(
        "search_entry",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.Identity(),
            nullable=False,
        ),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("conversation_id", sa.String(), nullable=False),
        sa.Column("message_id", sa.String(), nullable=True),
        sa.Column("length", sa.Integer(), nullable=False),
        sa.Column(
            "words", sa.Text().with_variant(postgresql.TSVECTOR(), "postgresql"), nullable=True
        ),
        sa.PrimaryKeyConstraint("id", name="pk_search_entry"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_search_entry_message_id", "search_entry", ["message_id"])
    op.create_index(
        "ix_search_entry_title",
        "search_entry",
        ["conversation_id"],
        sqlite_where=sa.text("message_id IS NULL"),
        postgresql_where=sa.text("message_id IS NULL"),
    )
    if sqlite:
        # Every word begins with an account of 30 characters; the prefixes are two or three more.
        op.execute(
            "CREATE VIRTUAL TABLE search_index "
            "USING fts5(words, content='', tokenize='ascii', prefix='32 33')"
        )
    else:
        op.create_index("ix_search_entry_words", "search_entry", ["words"], postgresql_using="gin")
    _index_everything(op.get_bind())


PAGE = 200
INDEXED_CHARS = 100_000
WORD_MAX_CHARS = 64
POSITION_MAX = 16_383  # of a tsvector

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_MARKS = (
    "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u0670\u06d6-\u06ed\u0900-\u0963\u0966-\u0dff"
)
_WORD = re.compile(rf"[{_UNSPACED}]|(?:[^\W_{_UNSPACED}]|[{_MARKS}])+")

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_C = sa.table("conversation", sa.column("id"), sa.column("account_id"), sa.column("title"))
_M = sa.table(
    "message",
    sa.column("id"),
    sa.column("conversation_id"),
    sa.column("generation_id"),
    sa.column("parts", _JSON),
)
_G = sa.table("generation", sa.column("id"), sa.column("parts", _JSON))

_NEW_ENTRY_SQLITE = (
    "INSERT INTO search_entry (account_id, conversation_id, message_id, length) VALUES (?, ?, ?, ?)"
)
_NEW_WORDS_SQLITE = "INSERT INTO search_index (rowid, words) VALUES (?, ?)"
_NEW_ENTRY_POSTGRES = sa.text("""
    INSERT INTO search_entry (account_id, conversation_id, message_id, length, words)
    VALUES (:account_id, :conversation_id, :message_id, :length,
            CAST(CAST(:words AS text) AS tsvector))""")


def _index_everything(connection: sa.Connection) -> None:
    titles = sa.select(_C.c.id, _C.c.account_id, _C.c.title)
    for conversation_id, account_id, title in _rows(connection, titles, _C.c.id):
        _add(connection, account_id, conversation_id, None, title)
    messages = (
        sa.select(_M.c.id, _C.c.account_id, _C.c.id, _M.c.parts, _G.c.parts)
        .join_from(_M, _C, _C.c.id == _M.c.conversation_id)
        .outerjoin(_G, _G.c.id == _M.c.generation_id)
    )
    for message_id, account_id, conversation_id, question, answer in _rows(
        connection, messages, _M.c.id
    ):
        parts = question or answer or []
        text = "".join(part["text"] for part in parts if part["type"] == "text")
        _add(connection, account_id, conversation_id, message_id, text)


def _rows(
    connection: sa.Connection, query: sa.Select[Any], id: sa.ColumnElement[str]
) -> Iterator[Any]:
    """The rows of a query by `id`, its first column, in pages.

    No cursor stays open: PostgreSQL would refuse to change a table that one still reads.
    """
    query, last = query.order_by(id).limit(PAGE), ""
    while rows := connection.execute(query.where(id > last)).all():
        yield from rows
        last = rows[-1][0]


def _add(
    connection: sa.Connection,
    account_id: str,
    conversation_id: str,
    message_id: str | None,
    text: str,
) -> None:
    words = _words_of(text)
    if not words:
        return
    account = account_id.replace("_", "").lower()
    if connection.dialect.name == "sqlite":
        entry = (account_id, conversation_id, message_id, len(words))
        entry_id = connection.exec_driver_sql(_NEW_ENTRY_SQLITE, entry).lastrowid
        joined = " ".join([account + word for word in words])
        connection.exec_driver_sql(_NEW_WORDS_SQLITE, (entry_id, joined))
        return
    vector = " ".join(f"'{word}':{min(at, POSITION_MAX)}" for at, word in enumerate(words, 1))
    connection.execute(
        _NEW_ENTRY_POSTGRES,
        {
            "account_id": account_id,
            "conversation_id": conversation_id,
            "message_id": message_id,
            "length": len(words),
            "words": f"'{account}' {vector}",
        },
    )


def _words_of(text: str) -> list[str]:
    text = text[:INDEXED_CHARS]
    if text.isascii():
        return [word[:WORD_MAX_CHARS] for word in _WORD.findall(text.lower())]
    words = (_normalized(word) for word in _WORD.findall(text))
    return [word for word in words if word]


def _normalized(word: str) -> str:
    if word.isascii():
        return word.lower()[:WORD_MAX_CHARS]
    decomposed = unicodedata.normalize("NFKD", word.casefold())
    return "".join(
        char
        for char in decomposed
        if not unicodedata.combining(char) and (char.isalnum() or not char.isascii())
    )[:WORD_MAX_CHARS]
