"""Indexes conversations by creation, for lists in that order."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_index("ix_conversation_created", "conversation", ["account_id", "created_at", "id"])
