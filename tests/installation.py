"""An installation: a folder with settings and data."""

import asyncio
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from server.command import people
from server.history.database import open_database
from server.history.schema import migrate
from server.history.tables import Generation
from server.settings import Settings, load_settings

T = TypeVar("T")


class Installation:
    """A folder with the settings file and the data of one installation."""

    def __init__(self, folder: Path, settings: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self.config = folder / "config.toml"
        self.configure(**(settings or {}))

    def configure(self, **settings: Any) -> None:
        """Write the settings for everything that is started from now on."""
        merged: dict[str, Any] = {
            "data": {"dir": str(self.folder / "data")},
            "generation": {"titles": False, "active_max_per_account": 1000},
            "worker": {"drain_s": 1},
            "providers": {},
        }
        for section, values in settings.items():
            merged.setdefault(section, {}).update(values)
        self.config.write_text(_toml(merged))
        tomllib.loads(self.config.read_text())

    @property
    def settings(self) -> Settings:
        return load_settings(self.config)

    @property
    def database(self) -> str:
        """The kind of its database."""
        return "SQLite" if self.settings.database_url.startswith("sqlite") else "PostgreSQL"

    def migrate(self) -> None:
        """Create the schema, without a process of its own."""
        settings = self.settings
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        in_a_thread(lambda: asyncio.run(migrate(settings.database_url)))

    def new_key(self, name: str = "test", account: str | None = None) -> str:
        """Create an API key, for the account with this email address if one is given."""

        def create() -> str:
            if account is not None and account not in {
                row[1] for row in people.list_users(self.settings)
            }:
                people.create_user(self.settings, account, admin=False)
            return people.create_key(self.settings, name, account, None)

        return in_a_thread(create)

    def row(self, generation_id: str) -> Generation:
        """The row of a generation as it is in SQL now."""

        async def read() -> Generation:
            async with open_database(self.settings.database_url) as database:
                return await database.read(
                    lambda session: session.get_one(Generation, generation_id)
                )

        return in_a_thread(lambda: asyncio.run(read()))


def in_a_thread(run: Callable[[], T]) -> T:
    """Run code that needs its own event loop, even from a test that already runs in one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run).result()


def _toml(sections: dict[str, Any]) -> str:
    lines = []
    for section, values in sections.items():
        plain = {k: v for k, v in values.items() if not isinstance(v, dict)}
        if plain:
            lines += [f"[{section}]", *(f"{k} = {_value(v)}" for k, v in plain.items())]
        for name, nested in values.items():
            if isinstance(nested, dict):
                lines += [f"[{section}.{name}]", *(f"{k} = {_value(v)}" for k, v in nested.items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return (
        str(value)
        if isinstance(value, int | float)
        else '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
    )
