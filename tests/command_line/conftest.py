"""Fixtures of the command line tests."""

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

from server.__main__ import main
from server.history.schema import migrate
from tests.command_line.commands import Command, Result


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run in an empty folder without any settings."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if (
            name.startswith("TIDEMARK_")
            or name.endswith("_API_KEY")
            or name in ("PORT", "DATABASE_URL", "REDIS_URL", "COLUMNS")
        ):
            monkeypatch.delenv(name)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command in this process."""

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["tidemark", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return Result(int(ended.value.code or 0), printed.out, printed.err)

    return run


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with an empty database."""
    folder = tmp_path_factory.mktemp("template")
    asyncio.run(migrate(f"sqlite:///{folder / 'tidemark.db'}"))
    return folder


@pytest.fixture
def data(template: Path, tmp_path: Path) -> Path:
    """A data folder of this test's own: the default one."""
    return Path(shutil.copytree(template, tmp_path / ".tidemark"))
