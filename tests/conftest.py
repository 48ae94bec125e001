"""Fixtures: one shared installation for what disturbs nothing, and installations of their own for what does."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client import Client
from tests.postgres import postgres_server
from tests.system import System
from tests.valkey import running_valkey


@pytest.fixture(scope="session")
def tidemark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """An installation that all tests share which disturb nothing: two web processes and a worker."""
    system = System(tmp_path_factory.mktemp("shared"))
    try:
        yield system.start(webs=2)
    finally:
        system.close()


@pytest.fixture(scope="session")
def valkey() -> Iterator[str]:
    """The URL of a Valkey for tests that start no other process."""
    with running_valkey() as url:
        yield url


@pytest.fixture
def new_system(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., System]]:
    """Makes installations of this test's own; they are ended with it. On SQLite, unless the test says otherwise (tests/postgres.py)."""
    systems: list[System] = []
    postgres = (
        request.getfixturevalue("postgres")
        if getattr(request, "param", "SQLite") == "PostgreSQL"
        else None
    )

    def make(**settings: Any) -> System:
        folder = tmp_path / f"system-{len(systems)}"
        folder.mkdir()
        if postgres is not None:
            settings = {"database": {"url": postgres.new_url()}} | settings
        systems.append(System(folder, settings))
        return systems[-1]

    yield make
    for system in systems:
        system.close()


@pytest.fixture(scope="session")
def key(tidemark: System) -> str:
    """An API key of the shared installation."""
    return tidemark.new_key()


@pytest.fixture
async def client(tidemark: System, key: str) -> AsyncIterator[Client]:
    """A caller of the shared installation."""
    async with Client(tidemark.web.url, key) as client:
        yield client


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m quick`, import only the test files that have a quick test: the others take longer."""
    if config.option.markexpr != "quick" or not collection_path.name.startswith("test_"):
        return None
    return "pytest.mark.quick" not in collection_path.read_text() or None
