"""The two kinds of database, and the marks that select them.

Installations use SQLite unless a test is marked; the closest mark wins. Tests on PostgreSQL are
slow: `uv run --group dev pytest -m slow` runs them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"

both_databases = pytest.mark.databases(SQLITE, POSTGRESQL)
on_postgresql = pytest.mark.databases(POSTGRESQL)
on_sqlite = pytest.mark.databases(SQLITE)


class Sql(NamedTuple):
    """A kind of database; `settings()` are those of a new, empty one."""

    name: str
    settings: Callable[[], dict[str, Any]]


def choose_databases(metafunc: pytest.Metafunc) -> None:
    """Parametrize a test that has an installation with the databases of its mark."""
    if "database_kind" not in metafunc.fixturenames:
        return
    mark = metafunc.definition.get_closest_marker("databases")
    kinds = [
        pytest.param(
            kind,
            id=kind.lower() if mark else pytest.HIDDEN_PARAM,
            marks=[pytest.mark.slow] if kind == POSTGRESQL else [],
        )
        for kind in (mark.args if mark else [SQLITE])
    ]
    metafunc.parametrize("database_kind", kinds, indirect=True, scope="session")
