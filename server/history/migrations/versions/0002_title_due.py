"""Adds the flag of conversations that need a title. Existing ones have theirs."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column(
        "conversation",
        sa.Column("title_due", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    op.create_index(
        "ix_conversation_title_due",
        "conversation",
        ["created_at"],
        sqlite_where=sa.text("title_due"),
        postgresql_where=sa.text("title_due"),
    )
