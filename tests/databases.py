"""Both databases, for tests whose claim holds on each: with `sql` among its arguments, a test runs on SQLite and on PostgreSQL."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest


class Sql(NamedTuple):
    """A kind of database; `settings()` are those of a new, empty one."""

    name: str
    settings: Callable[[], dict[str, Any]]


@pytest.fixture(scope="session", params=["SQLite", "PostgreSQL"])
def sql(request: pytest.FixtureRequest) -> Sql:
    """SQLite, then PostgreSQL; the fixture `postgres` has to be imported beside this one."""
    if request.param == "SQLite":
        return Sql("SQLite", dict)
    postgres = request.getfixturevalue("postgres")
    return Sql("PostgreSQL", lambda: {"database": {"url": postgres.new_url()}})
