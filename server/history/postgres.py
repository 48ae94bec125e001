"""Connections to PostgreSQL: asyncpg reads the address, and SQLAlchemy pools the connections."""

import ssl
from typing import Any, Final

import asyncpg
from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from server.postgres_url import PostgresUrl, parse_postgres_url

CONNECT_TIMEOUT_S: Final = 5.0
STATEMENT_TIMEOUT_S: Final = 30.0


def postgres_engine(url: str, **options: Any) -> AsyncEngine:
    """An engine for the database at `url`; `options` are SQLAlchemy's. Opens no connection."""
    address = parse_postgres_url(url)

    async def connect(**values: Any) -> Any:
        return await asyncpg.connect(address.dsn, **(values | _arguments(address)))

    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        hide_parameters=True,  # content must not be logged
        connect_args=_statements(address),
        **options,
    )
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    return engine


def _arguments(address: PostgresUrl) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "timeout": address.connect_timeout_s or CONNECT_TIMEOUT_S,
        "command_timeout": STATEMENT_TIMEOUT_S,
    }
    if address.system_ca:
        arguments["ssl"] = ssl.create_default_context()
    if address.pooled:
        arguments["statement_cache_size"] = 0
    return arguments


def _statements(address: PostgresUrl) -> dict[str, Any]:
    """With a pooler, statements have no name: the next one may run on another connection."""
    if not address.pooled:
        return {}
    return {"prepared_statement_cache_size": 0, "prepared_statement_name_func": lambda: ""}


def _refuse_closed(connection: Any, _record: object, _proxy: object) -> None:
    """Makes the pool replace a connection that asyncpg knows to be closed."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError
