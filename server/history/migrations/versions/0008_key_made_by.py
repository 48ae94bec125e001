"""Adds the key that created an API key, so that revoking it revokes the created one too."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("api_key", sa.Column("made_by", sa.String(), nullable=True))
    op.create_index("ix_api_key_made_by", "api_key", ["made_by"])
