"""Users have no roles yet: the flag that nothing read is dropped."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.drop_column("app_user", "admin")
