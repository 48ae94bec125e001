"""Help, the list of commands, and wrong usage."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from server.__main__ import cli
from tests.command_line.commands import Command, check_one_line


def commands_of(group: Any, name: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The names of every command and group."""
    yield name
    for each, inner in getattr(group, "commands", {}).items():
        yield from commands_of(inner, (*name, each))


@pytest.mark.quick
@pytest.mark.parametrize("name", list(commands_of(typer.main.get_command(cli))), ids=" ".join)
def test_every_command_has_help(name: tuple[str, ...], command: Command) -> None:
    result = command(*name, "--help")

    assert (result.code, result.err) == (0, "")
    assert "Usage: tidemark" in " ".join(result.out.split())


@pytest.mark.quick
def test_all_documented_commands_exist() -> None:
    documented = [
        "up",
        "web",
        "worker",
        "redis",
        "migrate",
        "doctor",
        "bench",
        "key create",
        "key list",
        "key revoke",
        "user create",
        "user list",
        "user link",
    ]

    assert set(documented) <= {" ".join(name) for name in commands_of(typer.main.get_command(cli))}


WRONG_USAGES = [
    ["nonsense"],
    ["key"],
    ["key", "create"],
    ["key", "revoke"],
    ["key", "nonsense"],
    ["user", "create"],
    ["up", "--port", "x"],
    ["up", "--port", "70000"],
    ["doctor", "--nonsense"],
    ["bench", "paced", "--streams", "0"],
]


@pytest.mark.quick
@pytest.mark.parametrize("arguments", WRONG_USAGES, ids=" ".join)
def test_wrong_usage_exits_with_2(arguments: list[str], command: Command, tmp_path: Path) -> None:
    result = command(*arguments)

    assert result.code == 2
    assert "Traceback" not in result.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.quick
def test_the_benchmarks_are_listed_and_an_unknown_one_is_refused(command: Command) -> None:
    listed, unknown = command("bench", "list"), command("bench", "nonsense")

    assert listed.code == 0
    assert "first-token" in listed.out
    check_one_line(unknown, 2, "nonsense")
