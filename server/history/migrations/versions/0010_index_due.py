"""Conversations that came from another account say whether the search index has yet to follow."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column(
        "conversation",
        sa.Column("index_due", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    op.create_index(
        "ix_conversation_index_due",
        "conversation",
        ["id"],
        sqlite_where=sa.text("index_due"),
        postgresql_where=sa.text("index_due"),
    )
