"""The command line: what it says when something is wrong, keys and users, the doctor, and `up` as a whole."""

import asyncio
import os
import re
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import pytest
import typer

from server.__main__ import cli, main
from server.errors import SettingsError
from server.history.schema import migrate
from server.identity.secrets import is_key
from server.settings import load_settings
from tests.system import System
from tests.waiting import until

GONE_WITHIN_S = 20
SERVES = re.compile(r"serves (http://\S+)")


class Ran(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Ran]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty folder, and nobody's settings."""
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
    """Runs a command in this very process."""

    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["tidemark", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return Ran(int(ended.value.code or 0), printed.out, printed.err)

    return run


def process(*arguments: str, **environment: str) -> Ran:
    """Runs a command in a process of its own."""
    command = [sys.executable, "-m", "server", *arguments]
    path = str(Path(__file__).parent.parent)
    ran = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": path} | environment,
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)


def check_one_line(ran: Ran, code: int, *words: str) -> None:
    """The command has failed with this code, and says in one line why."""
    assert ran.code == code, ran
    assert ran.err.startswith("tidemark: "), ran.err
    assert ran.err.count("\n") == 1, ran.err
    assert ran.err.endswith("\n"), ran.err
    for word in words:
        assert word in ran.err


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


# Settings

COMMANDS = [
    ["up"],
    ["web"],
    ["worker"],
    ["redis"],
    ["migrate"],
    ["doctor"],
    ["bench"],
    ["key", "list"],
    ["key", "create", "x"],
    ["key", "revoke", "x"],
    ["user", "list"],
    ["user", "create", "a@b"],
    ["user", "link", "a@b"],
]


@pytest.mark.quick
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_every_command_refuses_a_setting_it_does_not_know(
    arguments: list[str], command: Command, tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text("[server]\nprot = 8000\n")

    ran = command(*arguments)

    check_one_line(ran, 2, "config.toml", "server.prot")
    assert [file.name for file in tmp_path.iterdir()] == ["config.toml"]


BAD_FILES = {
    "an unknown key": ("[auth]\nguest = true\n", ["auth.guest"]),
    "an unknown section": ("[srever]\nport = 1\n", ["srever"]),
    "an unknown key at the top": ("port = 1\n", ["port"]),
    "an unknown key of a provider": ("[providers.openai]\nkey = 'x'\n", ["providers.openai.key"]),
    "an unknown kind of provider": (
        "[providers.openai]\nkind = 'other'\n",
        ["providers.openai.kind", "'other'", "'openai'"],
    ),
    "a bad name of a provider": ("[providers.'Open AI']\nmodels = []\n", ["Open AI"]),
    "a word for a number": ("[server]\nport = 'abc'\n", ["server.port", "'abc'", "integer"]),
    "a number out of range": ("[server]\nport = 70000\n", ["server.port", "70000", "65535"]),
    "zero where something is needed": (
        "[worker]\nconcurrency = 0\n",
        ["worker.concurrency", "0", "1"],
    ),
    "a negative time": ("[generation]\nretention_s = -1\n", ["generation.retention_s", "-1", "0"]),
    "a word for guests": ("[auth]\nguests = 'maybe'\n", ["auth.guests", "'maybe'", "loopback"]),
    "a list for a word": ("[server]\nhost = ['a']\n", ["server.host"]),
    "a value for a section": ("server = 1\n", ["server"]),
    "a public url without a scheme": (
        "[server]\npublic_url = 'chat.example'\n",
        ["server.public_url", "'chat.example'"],
    ),
    "a database nobody knows": (
        "[database]\nurl = 'mysql://x/y'\n",
        ["database.url", "'mysql://x/y'"],
    ),
    "a redis nobody knows": ("[redis]\nurl = 'http://x'\n", ["redis.url", "'http://x'"]),
    "no TOML": ("[server\n", []),
    "a section twice": ("[server]\n[server]\n", []),
    "not UTF-8": (b"[server]\nhost = '\xff'\n", []),
}


@pytest.mark.quick
@pytest.mark.parametrize(("text", "words"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_named_with_key_and_value(
    text: str | bytes, words: list[str], command: Command, tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_bytes(text if isinstance(text, bytes) else text.encode())

    ran = command("doctor")

    check_one_line(ran, 2, "config.toml", *words)


BAD_VARIABLES = {
    "TIDEMARK_SERVER__PROT": ("1", ["server.prot", "port"]),
    "TIDEMARK_SREVER__PORT": ("1", ["srever", "server"]),
    "TIDEMARK_SERVER__PORT": ("abc", ["'abc'", "integer"]),
    "TIDEMARK_SERVER__ALLOWED_HOSTS": ("chat.example", []),
    "TIDEMARK_SERVER__": ("1", []),
    "TIDEMARK_PROVIDERS__OPENAI__NONSENSE": ("1", []),
    "TIDEMARK_AUTH__GUESTS": ("maybe", ["'maybe'", "loopback"]),
    "TIDEMARK_WORKER__DRAIN_S": ("nan", []),
    "TIDEMARK_CONFIG": ("missing.toml", ["missing.toml"]),
    "PORT": ("abc", ["'abc'"]),
    "DATABASE_URL": ("mysql://x/y", ["'mysql://x/y'"]),
    "REDIS_URL": ("http://x", ["'http://x'"]),
}


@pytest.mark.quick
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [(name, *rest) for name, rest in BAD_VARIABLES.items()],
    ids=BAD_VARIABLES,
)
def test_a_bad_variable_is_named_with_its_value(
    name: str, value: str, words: list[str], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)

    ran = command("doctor")

    check_one_line(ran, 2, name if name != "TIDEMARK_CONFIG" else "", *words)


@pytest.mark.quick
def test_a_port_that_is_none_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    for port in ("70000", "-1", "1.5"):
        monkeypatch.setenv("PORT", port)

        with pytest.raises(SettingsError, match="PORT"):
            load_settings()


@pytest.mark.quick
@pytest.mark.parametrize(
    "name",
    [
        "TIDEMARK_NONSENSE",
        "TIDEMARK_PORT",
        "TIDEMARK_SERVICE_HOST",
        "TIDEMARK_SERVER",
        "TIDEMARK_DATA",
        "TIDEMARK_PROVIDERS",
    ],
)
def test_other_variables_that_begin_like_ours_are_nobodys_business(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "tcp://10.0.0.1:80")

    assert load_settings().server.port == 8000


@pytest.mark.quick
def test_a_file_that_was_asked_for_has_to_be_there(command: Command, tmp_path: Path) -> None:
    check_one_line(command("doctor", "--config", "missing.toml"), 2, "missing.toml")
    check_one_line(command("doctor", "--config", str(tmp_path)), 2, str(tmp_path))


@pytest.mark.quick
def test_the_environment_is_over_the_file_and_the_command_line_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.toml").write_text(
        "[server]\nport = 1\nhost = 'localhost'\n[data]\ndir = 'there'\n"
    )
    monkeypatch.setenv("TIDEMARK_SERVER__PORT", "2")
    monkeypatch.setenv("TIDEMARK_DATA__DIR", "elsewhere")

    settings, told = load_settings(), load_settings(data_dir=Path("here"))

    assert (settings.server.port, settings.server.host) == (2, "localhost")
    assert (settings.data_dir, told.data_dir) == (tmp_path / "elsewhere", tmp_path / "here")


@pytest.mark.quick
def test_paths_in_a_file_are_relative_to_it(tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "redis-url").write_text("redis://secret@redis.example:6379/1\n")
    (folder / "database-url").write_text("postgres://ada:pass@db.example/tidemark\n")
    (folder / "token").write_text("  s3cret\n")
    (folder / "key").write_text("sk-1\n")
    (folder / "config.toml").write_text(
        "[data]\ndir = 'data'\n[redis]\nurl_file = 'redis-url'\n[database]\nurl_file = 'database-url'\n"
        "[server]\nmetrics_token_file = 'token'\n[providers.openai]\napi_key_file = 'key'\n"
    )

    settings = load_settings(folder / "config.toml")

    assert settings.data_dir == folder / "data"
    assert (settings.redis_url, settings.embedded_redis) == (
        "redis://secret@redis.example:6379/1",
        False,
    )
    assert settings.database_url == "postgresql+asyncpg://ada:pass@db.example/tidemark"
    assert settings.metrics_token == "s3cret"
    assert settings.providers["openai"].api_key() == "sk-1"


FILES = {
    "redis.url_file missing": ("redis", "url_file", None),
    "redis.url_file wrong": ("redis", "url_file", "http://x"),
    "redis.url_file empty": ("redis", "url_file", ""),
    "database.url_file missing": ("database", "url_file", None),
    "database.url_file wrong": ("database", "url_file", "mysql://x/y"),
    "api_key_file missing": ("providers.openai", "api_key_file", None),
}


@pytest.mark.quick
@pytest.mark.parametrize(("section", "key", "content"), FILES.values(), ids=FILES)
def test_a_secret_file_has_to_be_there_and_to_make_sense(
    section: str, key: str, content: str | None, command: Command, tmp_path: Path, data: Path
) -> None:
    (tmp_path / "config.toml").write_text(f"[{section}]\n{key} = 'secret'\n")
    if content is not None:
        (tmp_path / "secret").write_text(content)

    ran = command("doctor")

    check_one_line(ran, 2, "secret")


PLATFORM = {
    "PORT": "5000",
    "DATABASE_URL": "postgres://ada@db.example/x",
    "REDIS_URL": "rediss://redis.example:1",
}


@pytest.mark.quick
def test_what_platforms_name_is_taken_where_ours_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PLATFORM.items():
        monkeypatch.setenv(name, value)

    settings = load_settings()

    assert settings.server.port == 5000
    assert settings.database_url == "postgresql+asyncpg://ada@db.example/x"
    assert (settings.redis_url, settings.embedded_redis) == ("rediss://redis.example:1", False)


@pytest.mark.quick
@pytest.mark.parametrize("where", ["file", "environment", "secret files"])
def test_what_platforms_name_is_not_taken_where_ours_is_set(
    where: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in PLATFORM.items():
        monkeypatch.setenv(name, value)
    ours = {
        "SERVER__PORT": "8001",
        "DATABASE__URL": "postgresql://ours/x",
        "REDIS__URL": "redis://ours",
    }
    if where == "environment":
        for name, value in ours.items():
            monkeypatch.setenv(f"TIDEMARK_{name}", value)
    else:
        for name in ("redis", "database"):
            (tmp_path / name).write_text(ours[f"{name.upper()}__URL"])
        database, redis = (
            ("url_file = 'database'", "url_file = 'redis'")
            if where == "secret files"
            else ("url = 'postgresql://ours/x'", "url = 'redis://ours'")
        )
        (tmp_path / "config.toml").write_text(
            f"[server]\nport = 8001\n[database]\n{database}\n[redis]\n{redis}\n"
        )

    settings = load_settings()

    assert (settings.server.port, settings.database_url, settings.redis_url) == (
        8001,
        "postgresql+asyncpg://ours/x",
        "redis://ours",
    )


@pytest.mark.quick
def test_ours_is_not_set_by_what_stands_beside_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text(
        "[server]\nhost = '0.0.0.0'\n[redis]\nkey_prefix = 'chat:'\n"
    )
    monkeypatch.setenv("TIDEMARK_SERVER__PROCESSES", "2")
    for name, value in PLATFORM.items():
        monkeypatch.setenv(name, value)

    settings = load_settings()

    assert (settings.server.port, settings.server.host, settings.server.processes) == (
        5000,
        "0.0.0.0",
        2,
    )
    assert (settings.redis_url, settings.redis.key_prefix) == ("rediss://redis.example:1", "chat:")
    assert settings.database_url == "postgresql+asyncpg://ada@db.example/x"


@pytest.mark.quick
def test_ours_set_to_what_it_is_anyway_is_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text("[redis]\nurl = 'embedded'\n[database]\nurl = ''\n")
    for name, value in PLATFORM.items():
        monkeypatch.setenv(name, value)

    settings = load_settings()

    assert settings.embedded_redis
    assert settings.database_url == f"sqlite:///{tmp_path / '.tidemark' / 'tidemark.db'}"


@pytest.mark.quick
def test_empty_platform_variables_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PLATFORM:
        monkeypatch.setenv(name, "")

    settings = load_settings()

    assert (settings.server.port, settings.embedded_redis) == (8000, True)


# Help and wrong use


def commands_of(group: Any, name: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command and group there is."""
    yield name
    for each, inner in getattr(group, "commands", {}).items():
        yield from commands_of(inner, (*name, each))


@pytest.mark.quick
@pytest.mark.parametrize("name", list(commands_of(typer.main.get_command(cli))), ids=" ".join)
def test_every_command_explains_itself(name: tuple[str, ...], command: Command) -> None:
    ran = command(*name, "--help")

    assert (ran.code, ran.err) == (0, "")
    assert "Usage: tidemark" in " ".join(ran.out.split())


@pytest.mark.quick
def test_the_commands_are_those_we_promise() -> None:
    promised = [
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

    assert set(promised) <= {" ".join(name) for name in commands_of(typer.main.get_command(cli))}


WRONG_USES = [
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
@pytest.mark.parametrize("arguments", WRONG_USES, ids=" ".join)
def test_wrong_use_ends_with_2(arguments: list[str], command: Command, tmp_path: Path) -> None:
    ran = command(*arguments)

    assert ran.code == 2
    assert "Traceback" not in ran.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.quick
def test_the_benchmarks_are_listed_and_an_unknown_one_is_refused(command: Command) -> None:
    listed, unknown = command("bench", "list"), command("bench", "nonsense")

    assert listed.code == 0
    assert "first-token" in listed.out
    check_one_line(unknown, 2, "nonsense")


# Keys and users


@pytest.mark.quick
def test_a_key_is_shown_once_and_listed_by_its_beginning(command: Command, data: Path) -> None:
    created = command("key", "create", "for a test")
    listed = command("key", "list")

    secret = created.out.removesuffix("\n")
    assert (created.code, created.err) == (0, "")
    assert is_key(secret)
    assert listed.code == 0
    assert secret not in listed.out
    assert secret[:12] in listed.out
    assert "for a test" in listed.out


def key_ids(data: Path) -> list[str]:
    with closing(sqlite3.connect(data / "tidemark.db")) as database:
        return [id for (id,) in database.execute("SELECT id FROM api_key ORDER BY created_at, id")]


@pytest.mark.quick
def test_a_list_can_be_read_by_programs(command: Command, data: Path) -> None:
    command("user", "create", "a.rather.long.address@of-a-rather-long-host.example.org")
    command(
        "key",
        "create",
        "a rather long name of a key",
        "--account",
        "a.rather.long.address@of-a-rather-long-host.example.org",
        "--expires",
        "90d",
    )

    [line] = [line for line in command("key", "list").out.splitlines() if "key_" in line]

    assert key_ids(data)[0] in line
    assert "a.rather.long.address@of-a-rather-long-host.example.org" in line
    assert "a rather long name of a key" in line
    assert line.rstrip().endswith("Z")


@pytest.mark.quick
@pytest.mark.parametrize("name", ["[red]x", "[/]", "a [b] c", "ключ 🌊", "-"])
def test_a_key_may_have_any_name(name: str, command: Command, data: Path) -> None:
    assert command("key", "create", name).code == 0

    assert name in command("key", "list").out


@pytest.mark.quick
def test_a_revoked_key_stays_revoked_and_an_unknown_one_is_refused(
    command: Command, data: Path
) -> None:
    command("key", "create", "x")
    [key_id] = key_ids(data)

    first, again, unknown = (
        command("key", "revoke", key_id),
        command("key", "revoke", key_id),
        command("key", "revoke", "nonsense"),
    )

    assert (first.code, again.code) == (0, 0)
    assert "revoked" in command("key", "list").out
    check_one_line(unknown, 1, "nonsense")


@pytest.mark.quick
@pytest.mark.parametrize(("expires", "days"), {"1440m": 1, "48h": 2, "90d": 90, "2w": 14}.items())
def test_a_key_may_end_by_itself(expires: str, days: int, command: Command, data: Path) -> None:
    assert command("key", "create", "x", "--expires", expires).code == 0

    with closing(sqlite3.connect(data / "tidemark.db")) as database:
        query = "SELECT julianday(expires_at) - julianday(created_at) FROM api_key"
        assert round(database.execute(query).fetchone()[0], 2) == days


@pytest.mark.quick
@pytest.mark.parametrize(
    "expires",
    [
        "",
        "90",
        "d",
        "0d",
        "-1d",
        "1.5d",
        "90 d",
        "90y",
        "90D",
        "²d",
        "99999d",
        "tomorrow",
        "2030-01-01",
    ],
)
def test_a_key_that_ends_some_other_time_is_not_made(
    expires: str, command: Command, data: Path
) -> None:
    ran = command("key", "create", "x", f"--expires={expires}")

    check_one_line(ran, 2, "--expires", "90d")
    assert key_ids(data) == []


@pytest.mark.quick
def test_an_address_is_the_same_in_any_case(command: Command, data: Path) -> None:
    assert command("user", "create", "Ada@Example.org") == Ran(0, "", "")

    check_one_line(command("user", "create", "ada@example.ORG"), 1, "already")
    assert command("user", "link", "ADA@example.org").code == 0
    assert command("key", "create", "x", "--account", "Ada@Example.org").code == 0
    assert "ada@example.org" in command("user", "list").out


def test_a_user_who_is_to_be_an_admin_is_a_user(command: Command, data: Path) -> None:
    created = command("user", "create", "ada@example.org", "--admin")

    assert (created.code, created.out) == (0, "")
    assert created.err == "tidemark: --admin has no effect: users have no roles yet.\n"
    assert "ada@example.org" in command("user", "list").out


@pytest.mark.quick
@pytest.mark.parametrize(
    "email", ["", " ", "ada", "@example.org", "ada@", "a da@example.org", "ada@exam ple.org"]
)
def test_what_is_no_address_is_no_user(email: str, command: Command, data: Path) -> None:
    check_one_line(command("user", "create", email), 2, "ada@example.org")


@pytest.mark.quick
def test_who_is_not_there_gets_no_link_and_no_key(command: Command, data: Path) -> None:
    check_one_line(command("user", "link", "nobody@example.org"), 1, "nobody@example.org")
    check_one_line(
        command("key", "create", "x", "--account", "nobody@example.org"), 1, "nobody@example.org"
    )
    assert command("key", "create", "x", "--account", "").code == 2
    assert key_ids(data) == []


@pytest.mark.quick
def test_a_link_leads_to_where_the_server_is(
    command: Command, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("user", "create", "ada@example.org")
    here = command("user", "link", "ada@example.org")
    monkeypatch.setenv("TIDEMARK_SERVER__PUBLIC_URL", "https://chat.example/")

    there = command("user", "link", "ada@example.org")

    assert re.fullmatch(r"http://127\.0\.0\.1:8000/#token=[\w-]{40,}\n", here.out)
    assert re.fullmatch(r"https://chat\.example/#token=[\w-]{40,}\n", there.out)


READERS = [
    ["key", "create", "x"],
    ["key", "list"],
    ["key", "revoke", "x"],
    ["user", "create", "a@b"],
    ["user", "list"],
    ["user", "link", "a@b"],
]


@pytest.mark.quick
@pytest.mark.parametrize("arguments", READERS, ids=" ".join)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_who_only_looks_makes_no_data_folder(
    arguments: list[str],
    elsewhere: bool,
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if elsewhere:
        monkeypatch.setenv("TIDEMARK_DATABASE__URL", f"sqlite:///{tmp_path / 'other.db'}")

    ran = command(*arguments)

    check_one_line(ran, 1, "tidemark up", "tidemark migrate")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.quick
def test_keys_are_kept_where_a_secret_file_says(
    command: Command, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data.rename(tmp_path / "elsewhere")
    (tmp_path / "url").write_text(f"sqlite:///{tmp_path / 'elsewhere' / 'tidemark.db'}\n")
    monkeypatch.setenv("TIDEMARK_DATABASE__URL_FILE", str(tmp_path / "url"))

    assert command("key", "create", "x").code == 0
    assert len(key_ids(tmp_path / "elsewhere")) == 1


@pytest.mark.quick
def test_a_database_with_an_older_schema_is_left_alone(command: Command, data: Path) -> None:
    (data / "tidemark.db").write_bytes(b"")

    check_one_line(command("key", "list"), 1, "tidemark migrate")
    doctor = command("doctor")
    assert doctor.code == 1
    assert "tidemark migrate" in " ".join(doctor.out.split())


# The doctor


def findings(ran: Ran) -> str:
    """What was found, as one line."""
    return " ".join(ran.out.split())


@pytest.mark.quick
def test_the_doctor_makes_nothing_and_says_what_to_do(command: Command, tmp_path: Path) -> None:
    ran = command("doctor")

    assert ran.code == 0
    assert "`tidemark up` or `tidemark migrate` creates it" in findings(ran)
    assert "the embedded Valkey is not running" in findings(ran)
    assert "Set OPENAI_API_KEY" in findings(ran)
    assert "Set ANTHROPIC_API_KEY" in findings(ran)
    assert "the default is demo" in findings(ran)
    assert list(tmp_path.iterdir()) == []


def test_the_doctor_finds_a_healthy_installation_healthy(
    tidemark: System, command: Command
) -> None:
    ran = command("doctor", "--config", str(tidemark.config))

    assert ran.code == 0
    assert "database: sqlite, schema revision" in findings(ran)
    assert "redis: valkey" in findings(ran)


def test_the_doctor_wants_a_redis_that_evicts_nothing(
    new_system: Callable[..., System], command: Command
) -> None:
    system = new_system()
    system.start_redis()
    with closing(system.redis()) as redis:
        redis.config_set("maxmemory", "100mb")
        redis.config_set("maxmemory-policy", "allkeys-lru")

    ran = command("doctor", "--config", str(system.config))

    assert ran.code == 1
    assert "allkeys-lru" in findings(ran)
    assert "noeviction" in findings(ran)


@pytest.mark.quick
def test_the_doctor_finds_what_does_not_answer(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    monkeypatch.setenv("DATABASE_URL", "postgres://ada:pa55@127.0.0.1:1/x")

    ran = command("doctor")

    assert ran.code == 1
    assert "Check database.url" in findings(ran)
    assert "Check redis.url" in findings(ran)
    assert "pa55" not in ran.out + ran.err


@pytest.mark.quick
def test_the_doctor_says_that_others_cannot_come_in(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMARK_SERVER__HOST", "0.0.0.0")

    assert "Set server.public_url or server.allowed_hosts" in findings(command("doctor"))


class Refusing(BaseHTTPRequestHandler):
    """An upstream that knows no key."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.end_headers()

    def log_message(self, *_arguments: Any) -> None:
        pass


def test_the_doctor_tries_the_key_of_a_provider_and_never_shows_it(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with HTTPServer(("127.0.0.1", 0), Refusing) as upstream:
        monkeypatch.setenv(
            "TIDEMARK_PROVIDERS__OPENAI__BASE_URL", f"http://127.0.0.1:{upstream.server_port}/v1"
        )
        monkeypatch.setenv("TIDEMARK_PROVIDERS__OPENAI__API_KEY_ENV", "OPENAI_API_KEY")
        monkeypatch.setenv("TIDEMARK_PROVIDERS__OPENAI__MODELS", '["tiny"]')
        serving = threading.Thread(target=upstream.serve_forever)
        serving.start()
        ran = command("doctor")
        upstream.shutdown()
        serving.join()

    assert "rejected the API key (401)" in findings(ran)
    assert "the default is openai/tiny" in findings(ran)
    assert "sk-secret" not in ran.out + ran.err


class Listing(BaseHTTPRequestHandler):
    """An upstream that lists its models, and notes who asked."""

    def do_GET(self) -> None:
        self.server.asked.append(
            (self.path, self.headers["Authorization"], self.headers["x-api-key"])
        )  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_arguments: Any) -> None:
        pass


def test_the_doctor_asks_each_kind_of_provider_in_its_own_way(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KEY", "sk-secret\n")
    with HTTPServer(("127.0.0.1", 0), Listing) as upstream:
        upstream.asked = []  # type: ignore[attr-defined]
        provider = f"base_url = 'http://127.0.0.1:{upstream.server_port}'\napi_key_env = 'KEY'\nmodels = ['tiny']\n"
        (tmp_path / "config.toml").write_text(
            f"[providers.one]\n{provider}[providers.two]\nkind = 'anthropic'\n{provider}"
        )
        serving = threading.Thread(target=upstream.serve_forever)
        serving.start()
        ran = command("doctor")
        upstream.shutdown()
        serving.join()

    assert findings(ran).count("reachable (200); models: tiny") == 2
    assert upstream.asked == [
        ("/v1/models", "Bearer sk-secret", None),
        ("/v1/models", None, "sk-secret"),
    ]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["doctor", "web"])
def test_a_default_model_that_nobody_offers_stops_the_start(name: str, data: Path) -> None:
    check_one_line(
        process(name, TIDEMARK_GENERATION__DEFAULT_MODEL="nobody/nothing", PORT="0"),
        2,
        "generation.default_model",
        "nobody/nothing",
    )


# Processes that cannot start


@contextmanager
def busy_port() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


@pytest.mark.parametrize("name", ["up", "web"])
def test_a_port_in_use_is_named(name: str) -> None:
    with busy_port() as port:
        ran = process(name, PORT=str(port))

    check_one_line(ran, 1, f"Port {port} on 127.0.0.1", "--port")


@pytest.mark.parametrize("name", ["up", "web", "worker", "redis", "migrate"])
def test_a_data_folder_that_is_none_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("I am no folder")

    ran = process(name, "--data-dir", "file", PORT="0")

    check_one_line(ran, 1, str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "I am no folder"


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with no room for anything."""
    folder = tmp_path / "full"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if (
        sys.platform != "linux"
        or not shutil.which("mount")
        or subprocess.run(mount, check=False, capture_output=True).returncode
    ):
        pytest.skip("a small file system can only be mounted by root on Linux")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("name", ["up", "migrate"])
def test_a_full_disk_is_found_out_at_the_start(name: str, full_disk: Path) -> None:
    ran = process(name, "--data-dir", str(full_disk), PORT="0")

    check_one_line(ran, 1)


def test_redis_elsewhere_is_waited_for_by_doing_nothing() -> None:
    if doing_in_the_kernel(os.getpid()) is None:
        pytest.skip("what a process waits for is only told by Linux")
    started = start("redis", REDIS_URL="redis://127.0.0.1:1")
    try:
        until(
            lambda: "sigtimedwait" in (doing_in_the_kernel(started.popen.pid) or ""),
            "the wait for a signal",
        )
        started.popen.terminate()
        assert started.popen.wait(10) == 0
    finally:
        started.end()


def doing_in_the_kernel(pid: int) -> str | None:
    """What a process waits for, where the system tells."""
    try:
        return Path(f"/proc/{pid}/wchan").read_text()
    except OSError:
        return None


# Everything at once


class Started:
    """A command that runs, and what it has started."""

    def __init__(self, popen: "subprocess.Popen[bytes]", log: Path) -> None:
        self.popen, self.log = popen, log
        self.family: list[psutil.Process] = []

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def url(self) -> str:
        """Where it serves, once it says so."""

        def found() -> str:
            assert self.popen.poll() is None, self.said
            match = SERVES.search(self.said)
            return match[1] if match else ""

        return str(until(found, "the address"))

    def children(self) -> dict[str, psutil.Process]:
        """The processes it has now, by what they do."""
        found = psutil.Process(self.popen.pid).children(recursive=True)
        self.family += [each for each in found if each not in self.family]
        return {
            name: each
            for each in found
            for name in ("web", "worker", "valkey")
            if name in role_of(each)
        }

    def nothing_is_left(self) -> bool:
        return not any(
            each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in self.family
        )

    def end(self) -> None:
        """Ends it and its children, whatever they do."""
        if self.popen.poll() is None:
            with suppress(psutil.NoSuchProcess):
                self.children()
            self.popen.kill()
            self.popen.wait()
        for each in self.family:
            with suppress(psutil.NoSuchProcess):
                each.kill()


def role_of(child: psutil.Process) -> str:
    """What a child of `up` does."""
    try:
        return child.name()
    except psutil.Error:
        return ""


def start(*arguments: str, **environment: str) -> Started:
    """Starts a command in this folder."""
    log = Path.cwd() / f"{'-'.join(arguments[:1])}-{time.monotonic_ns()}.log"
    path = str(Path(__file__).parent.parent)
    with log.open("wb") as out:
        popen = subprocess.Popen(
            [sys.executable, "-m", "server", *arguments],
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": path} | environment,
            start_new_session=True,
        )
    return Started(popen, log)


@pytest.fixture
def up() -> Iterator[Callable[[], Started]]:
    """Starts `up` on a free port, in this folder."""
    running: list[Started] = []

    def run() -> Started:
        running.append(start("up", "--port", "0"))
        return running[-1]

    yield run
    for each in running:
        each.end()


def ask(url: str, key: str, text: str = "/demo tokens=3 rate=0") -> str:
    """Asks, and reads the whole stream."""
    headers = {"Authorization": f"Bearer {key}", "Accept": "text/event-stream"}
    return httpx.post(
        f"{url}/api/messages", json={"text": text}, headers=headers, timeout=30, trust_env=False
    ).text


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def completes(url: str, key: str) -> bool:
    try:
        return "event: completed" in ask(url, key)
    except httpx.TransportError:
        return False


def test_up_is_all_one_needs(up: Callable[[], Started], tmp_path: Path) -> None:
    running = up()
    url = running.url()

    assert ready(url)
    file = tmp_path / ".tidemark" / "dev-key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    key = file.read_text().strip()
    assert is_key(key)
    assert completes(url, key)
    until(lambda: "OPENAI_API_KEY" in running.said, "what it says of providers")
    until(lambda: str(file) in running.said, "what it says of the key")
    assert key not in running.said
    assert stat.S_IMODE((tmp_path / ".tidemark").stat().st_mode) == 0o700
    check_one_line(process("up", "--port", "0"), 1, "Another", str(tmp_path / ".tidemark"))
    assert ready(url)
    assert set(running.children()) == {"web", "worker", "valkey"}
    for name in ("web", "worker", "valkey"):
        check_that_it_comes_back(running, name, url, key)


def check_that_it_comes_back(running: Started, name: str, url: str, key: str) -> None:
    """A child that dies is replaced, and everything works again."""
    child = running.children()[name]

    child.kill()

    until(lambda: running.children().get(name, child) != child, f"another {name}")
    until(lambda: ready(url) and completes(url, key), f"an answer after the end of {name}")
    assert running.popen.poll() is None


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_all_of_it(
    number: signal.Signals, up: Callable[[], Started], tmp_path: Path
) -> None:
    running = up()
    url, children = running.url(), running.children()
    key = (tmp_path / ".tidemark" / "dev-key").read_text().strip()
    body = {"text": "/demo tokens=10 rate=0 stall_after=3"}
    assert (
        httpx.post(
            f"{url}/api/messages",
            json=body,
            headers={"Authorization": f"Bearer {key}"},
            trust_env=False,
        ).status_code
        == 202
    )

    running.popen.send_signal(number)

    assert running.popen.wait(GONE_WITHIN_S) == 0
    until(running.nothing_is_left, f"the end of {children}")
    assert not ready(url)
    assert "Traceback" not in running.said


@pytest.mark.slow
def test_when_up_is_killed_nothing_stays_and_the_next_one_goes_on(
    up: Callable[[], Started], tmp_path: Path
) -> None:
    first = up()
    url = first.url()
    key = (tmp_path / ".tidemark" / "dev-key").read_text().strip()
    assert completes(url, key)
    assert len(first.children()) == 3

    first.popen.kill()
    first.popen.wait()

    until(first.nothing_is_left, "the end of what was left behind", GONE_WITHIN_S)
    url = up().url()
    assert (tmp_path / ".tidemark" / "dev-key").read_text().strip() == key
    headers = {"Authorization": f"Bearer {key}"}
    assert (
        len(httpx.get(f"{url}/api/conversations", headers=headers, trust_env=False).json()["data"])
        == 1
    )
    assert completes(url, key)


def test_the_schema_is_brought_once(command: Command, data: Path) -> None:
    first = process("migrate", "--data-dir", "fresh")
    again = process("migrate", "--data-dir", "fresh")

    assert (first.code, again.code) == (0, 0)
    assert "already" in again.out
    assert command("key", "list", "--data-dir", "fresh").code == 0
