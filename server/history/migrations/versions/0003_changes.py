"""Indexes conversations and messages by their last change."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_index("ix_conversation_change", "conversation", ["account_id", "change"])
    op.create_index("ix_message_change", "message", ["conversation_id", "change"])
