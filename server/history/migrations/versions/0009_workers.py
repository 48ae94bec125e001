"""Workers have a row of their own, which they beat instead of every generation they own."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    worker = op.create_table(
        "worker",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.Column("lease_s", sa.Float(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_worker"),
    )
    op.add_column(
        "generation",
        sa.Column("claimed_beat", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
    )
    used = op.get_bind().execute(sa.text("SELECT 1 FROM account LIMIT 1")).scalar()
    if used:
        # Workers of the version before may be running for a while, and watch the rows.
        row = {"name": "earlier-version", "beat": 0, "lease_s": 0, "created_at": datetime.now(UTC)}
        op.bulk_insert(worker, [row])
