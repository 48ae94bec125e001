"""API keys remember the key that made them, so that revoking one revokes those as well."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("api_key", sa.Column("made_by", sa.String(), nullable=True))
    op.create_index("ix_api_key_made_by", "api_key", ["made_by"])
