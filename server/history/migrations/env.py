"""Runs migrations on the connection of `server.history.schema`, inside its transaction."""

from alembic import context
from sqlmodel import SQLModel

from server.history import tables  # noqa: F401  fills the metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    render_as_batch=True,
)
context.run_migrations()
