"""Comparing the schema of a database with the declared tables."""

from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlmodel import SQLModel


def differences(connection: Connection) -> list[Any]:
    """The changes that a new migration would have to make."""

    def compared(_object: object, name: str | None, *_: object) -> bool:
        if connection.dialect.name == "postgresql" or name is None:
            return True
        # Full-text search differs between the databases.
        return not name.startswith("search_index") and name != "ix_search_entry_words"

    options = {"compare_type": True, "include_object": compared}
    context = MigrationContext.configure(connection, opts=options)
    return list(compare_metadata(context, SQLModel.metadata))
