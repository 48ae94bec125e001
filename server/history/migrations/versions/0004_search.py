"""What was said is found by its words, also what was said before."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
from sqlmodel import Session

from server.history.search import index_everything

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
        # Every word begins with an account, of 30 characters: this is the account and two or three characters.
        op.execute(
            "CREATE VIRTUAL TABLE search_index USING fts5(words, content='', tokenize='ascii', prefix='32 33')"
        )
    else:
        op.create_index("ix_search_entry_words", "search_entry", ["words"], postgresql_using="gin")
    with Session(op.get_bind()) as session:
        index_everything(session)
