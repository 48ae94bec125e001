"""Adds an index for each query of a sweep, so that many queued answers do not slow it down."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    create("ix_generation_running", ["owner"], "status = 'running'")
    create("ix_generation_queued", ["id"], "status = 'queued'")
    create(
        "ix_generation_cancelling",
        ["id"],
        "cancel_requested_at IS NOT NULL AND finished_at IS NULL",
    )
    create("ix_generation_unsealed", ["id"], "finished_at IS NOT NULL AND NOT sealed")
    op.drop_index("ix_generation_open", "generation")


def create(name: str, columns: list[str], where: str) -> None:
    op.create_index(
        name, "generation", columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where)
    )
