"""Drops the unused flag `admin`: users have no roles yet."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.drop_column("app_user", "admin")
