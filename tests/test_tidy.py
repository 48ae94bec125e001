"""The house: layers, first sentences, and documents that say what is so."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from importlinter.cli import lint_imports
from pydantic import BaseModel
from typer.testing import CliRunner

from server.__main__ import cli
from server.history.schema import REVISION
from server.settings import ProviderSettings, Settings, load_settings

pytestmark = pytest.mark.quick

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "server").rglob("*.py"))
FILE_MAX_LINES, FUNCTION_MAX_LINES = 500, 66


def test_imports_point_down(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)

    exit_code = lint_imports(no_cache=True)

    assert exit_code == 0, capsys.readouterr().out


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_opens_with_a_sentence_and_is_about_one_thing(path: Path) -> None:
    text = path.read_text()
    if "migrations/versions" in str(path) and path.name != "__init__.py":
        return

    tree = ast.parse(text)

    assert (ast.get_docstring(tree) or "").strip(), (
        "it opens with a sentence that says what it holds"
    )
    assert text.count("\n") <= FILE_MAX_LINES
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            assert node.end_lineno - node.lineno <= FUNCTION_MAX_LINES, node.name


def test_only_two_files_import_arq() -> None:
    importing = {
        path.name
        for path in SOURCES
        if re.search(r"^(from|import) arq", path.read_text(), re.MULTILINE)
    }

    assert importing <= {"queue.py", "arq_worker.py", "resources.py"}


def settings_keys() -> list[str]:
    """Every setting there is, as `section.key`."""
    keys = []
    for section, field in Settings.model_fields.items():
        model = field.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            keys += [f"{section}.{key}" for key in model.model_fields]
    return keys + [f"providers.openai.{key}" for key in ProviderSettings.model_fields]


@pytest.mark.parametrize("key", settings_keys())
def test_every_setting_is_in_the_config_file(key: str) -> None:
    text = (ROOT / "config.toml").read_text()
    section, _, name = key.rpartition(".")

    table = text.split(f"[{section}]", 1)[1].split("\n[", 1)[0]

    assert name in table, f"config.toml does not mention {key}"


def test_the_config_file_says_the_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from_file = load_settings(ROOT / "config.toml")
    monkeypatch.chdir(tmp_path)

    by_default = load_settings()

    for section in Settings.model_fields:
        if section != "data":
            assert getattr(from_file, section) == getattr(by_default, section), section


def test_every_error_code_is_documented() -> None:
    codes = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and getattr(node.func, "id", "") in REFUSALS | {"failed", "ProviderError"}
                and node.args
            ):
                codes |= {node.args[0].value} if isinstance(node.args[0], ast.Constant) else set()
    documented = (ROOT / "docs" / "http.md").read_text() + (
        ROOT / "docs" / "graphql.md"
    ).read_text()

    missing = {code for code in codes if f"`{code}`" not in documented}

    assert codes
    assert not missing


REFUSALS = {
    "Unreadable",
    "Forbidden",
    "Conflict",
    "TooLarge",
    "UnsupportedType",
    "Invalid",
    "TooMany",
    "InternalFault",
    "MethodNotAllowed",
}


def test_the_commands_of_the_readme_exist() -> None:
    commands = set(re.findall(r"tidemark ([a-z]+)", (ROOT / "README.md").read_text()))

    promised = CliRunner().invoke(cli, ["--help"]).output

    assert commands
    assert {command for command in commands if command not in promised} == set()


def test_the_procfile_names_commands() -> None:
    lines = (ROOT / "Procfile").read_text().splitlines()

    assert {line.split(": tidemark ")[1] for line in lines} == {"web", "worker", "redis", "migrate"}


def test_the_newest_migration_is_the_one_the_program_waits_for() -> None:
    newest = max(
        int(path.name[:4]) for path in (ROOT / "server/history/migrations/versions").glob("0*.py")
    )

    assert newest == REVISION


def test_every_pin_is_of_a_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"] + project["project"]["optional-dependencies"]["dev"]
    names = {re.split(r"[\[~>=<]", line)[0] for line in wanted}

    pinned = {pin.split("==")[0] for pin in project["tool"]["uv"]["constraint-dependencies"]}

    assert names <= pinned
    assert pinned - names <= {"pydantic"}


def test_no_file_names_a_registry() -> None:
    hosts = [
        "pypi" + ".org",
        "registry.npmjs" + ".org",
        "files.python" + "hosted",
        "deb.debian" + ".org",
    ]
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()

    naming = [
        name
        for name in tracked
        if (ROOT / name).is_file()
        and any(host in (ROOT / name).read_text(errors="ignore") for host in hosts)
    ]

    assert naming == []
