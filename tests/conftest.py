"""Fixtures: one shared installation for tests that do not disturb it, separate ones for others.

Fixtures import heavy modules when they run, because every pytest process imports this file.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from tests.client import Client
from tests.databases import POSTGRESQL, SQLITE, Sql, choose_databases
from tests.postgres import Postgres, running_postgres

if TYPE_CHECKING:
    from arq.connections import ArqRedis
    from playwright.sync_api import Browser

    from tests.browser import NewWindow, Window
    from tests.in_process import InProcess
    from tests.links import Linked
    from tests.system import System


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    choose_databases(metafunc)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m quick`, import only the files that have a quick test: the others import slowly."""
    if config.option.markexpr != "quick" or not collection_path.name.startswith("test_"):
        return None
    return "pytest.mark.quick" not in collection_path.read_text() or None


# Databases and Redis


@pytest.fixture(scope="session")
def database_kind(request: pytest.FixtureRequest) -> str:
    """Which database a test's installations use; see tests/databases.py."""
    return str(getattr(request, "param", SQLITE))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def sql(database_kind: str, request: pytest.FixtureRequest) -> Sql:
    """The database of this test, for installations that it starts itself."""
    if database_kind == SQLITE:
        return Sql(SQLITE, dict)
    server: Postgres = request.getfixturevalue("postgres")
    return Sql(POSTGRESQL, lambda: {"database": {"url": server.new_url()}})


@pytest.fixture(scope="session")
def valkey() -> Iterator[str]:
    """The URL of a Valkey for tests that start no other process."""
    from tests.valkey import running_valkey

    with running_valkey() as url:
        yield url


@pytest.fixture
async def redis(valkey: str) -> "AsyncIterator[ArqRedis]":
    """A client of that Valkey, which is flushed after the test."""
    from server.lifecycle.queue import open_redis

    redis = open_redis(valkey)
    yield redis
    await redis.flushall()
    await redis.aclose(close_connection_pool=True)


# The shared installation


@pytest.fixture(scope="session")
def shared_systems() -> "Iterator[dict[str, System]]":
    """The shared installations by their database; they run until the end of the session."""
    systems: dict[str, System] = {}
    yield systems
    for system in systems.values():
        system.close()


@pytest.fixture(scope="session")
def tidemark(
    sql: Sql, shared_systems: "dict[str, System]", tmp_path_factory: pytest.TempPathFactory
) -> "System":
    """The installation shared by all tests that do not disturb it: two web processes, a worker."""
    from tests.system import System

    if sql.name not in shared_systems:
        system = System(tmp_path_factory.mktemp("shared"), sql.settings())
        shared_systems[sql.name] = system
        system.start(webs=2, workers=1 if sql.name == SQLITE else 2)
    return shared_systems[sql.name]


@pytest.fixture(scope="session")
def key(tidemark: "System") -> str:
    """An API key of the shared installation."""
    return tidemark.new_key()


@pytest.fixture
async def client(tidemark: "System", key: str) -> AsyncIterator[Client]:
    """A caller of the shared installation."""
    async with Client(tidemark.web.url, key) as client:
        yield client


@pytest.fixture
def own_key(tidemark: "System") -> str:
    """A key of an account that only this test uses."""
    return tidemark.new_key(account=f"{uuid4().hex}@example.org")


@pytest.fixture
async def person(tidemark: "System", own_key: str) -> AsyncIterator[Client]:
    """A caller with an account that only this test uses."""
    async with Client(tidemark.web.url, own_key) as person:
        yield person


# Separate installations


@pytest.fixture
def new_system(sql: Sql, tmp_path: Path) -> "Iterator[Callable[..., System]]":
    """Create installations for this test only."""
    from tests.system import System

    systems: list[System] = []

    def create(**settings: Any) -> System:
        folder = tmp_path / f"system-{len(systems)}"
        folder.mkdir()
        systems.append(System(folder, sql.settings() | settings))
        return systems[-1]

    yield create
    for system in systems:
        system.close()


@pytest.fixture(scope="module")
def linked_of_module(sql: Sql, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Linked]":
    """One installation behind proxies for all tests of a file, on each database."""
    from tests.links import linked_system
    from tests.system import System

    with linked_system(System(tmp_path_factory.mktemp("linked"), sql.settings())) as linked:
        yield linked


@pytest.fixture
def linked(linked_of_module: "Linked") -> "Iterator[Linked]":
    """The installation of this file, whose links work again after the test."""
    yield linked_of_module
    for link in (linked_of_module.web_link, linked_of_module.worker_link):
        link.mend()


@pytest.fixture(scope="module")
def key_of_module(installation: "InProcess") -> str:
    return installation.new_key()


@pytest.fixture
async def caller(installation: "InProcess", key_of_module: str) -> AsyncIterator[Client]:
    """A caller of the in-process installation that the test file defines."""
    async with Client(installation.url, key_of_module) as client:
        yield client


# The chat page


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    from tests.browser import open_browser

    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[System]":
    """An installation that accepts many guests from one address."""
    from tests.system import System

    system = System(
        tmp_path_factory.mktemp("page"), {"auth": {"guest_sessions_max_per_hour_per_ip": 1000}}
    )
    try:
        yield system.start()
    finally:
        system.close()


@pytest.fixture
def new_window(browser: "Browser", served: "System") -> "Iterator[NewWindow]":
    """Open windows, each of a new guest."""
    from tests.browser import windows

    with windows(browser, served.web.url) as new:
        yield new


@pytest.fixture
def window(new_window: "NewWindow") -> "Window":
    """A window in which a new guest has opened the page."""
    return new_window().open()
