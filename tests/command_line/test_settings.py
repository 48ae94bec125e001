"""Settings: files, environment variables, arguments, and their precedence."""

from pathlib import Path

import pytest

from server.errors import SettingsError
from server.settings import load_settings
from tests.command_line.commands import Command, check_one_line

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
def test_every_command_refuses_an_unknown_setting(
    arguments: list[str], command: Command, tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text("[server]\nprot = 8000\n")

    result = command(*arguments)

    check_one_line(result, 2, "config.toml", "server.prot")
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
def test_an_error_in_a_file_names_the_key_and_value(
    text: str | bytes, words: list[str], command: Command, tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_bytes(text if isinstance(text, bytes) else text.encode())

    result = command("doctor")

    check_one_line(result, 2, "config.toml", *words)


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
def test_an_error_in_a_variable_names_it_with_its_value(
    name: str, value: str, words: list[str], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)

    result = command("doctor")

    check_one_line(result, 2, name if name != "TIDEMARK_CONFIG" else "", *words)


@pytest.mark.quick
def test_an_invalid_port_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_unrelated_variables_with_the_prefix_are_ignored(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "tcp://10.0.0.1:80")

    assert load_settings().server.port == 8000


@pytest.mark.quick
def test_a_file_given_on_the_command_line_must_exist(command: Command, tmp_path: Path) -> None:
    check_one_line(command("doctor", "--config", "missing.toml"), 2, "missing.toml")
    check_one_line(command("doctor", "--config", str(tmp_path)), 2, str(tmp_path))


@pytest.mark.quick
def test_arguments_override_the_environment_which_overrides_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.toml").write_text(
        "[server]\nport = 1\nhost = 'localhost'\n[data]\ndir = 'there'\n"
    )
    monkeypatch.setenv("TIDEMARK_SERVER__PORT", "2")
    monkeypatch.setenv("TIDEMARK_DATA__DIR", "elsewhere")

    settings, with_argument = load_settings(), load_settings(data_dir=Path("here"))

    assert (settings.server.port, settings.server.host) == (2, "localhost")
    assert (settings.data_dir, with_argument.data_dir) == (
        tmp_path / "elsewhere",
        tmp_path / "here",
    )


@pytest.mark.quick
def test_paths_in_a_settings_file_are_relative_to_it(tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "redis-url").write_text("redis://secret@redis.example:6379/1\n")
    (folder / "database-url").write_text("postgres://ada:pass@db.example/tidemark\n")
    (folder / "token").write_text("  s3cret\n")
    (folder / "key").write_text("sk-1\n")
    (folder / "config.toml").write_text(
        "[data]\ndir = 'data'\n[redis]\nurl_file = 'redis-url'\n[database]\nurl_file = "
        "'database-url'\n"
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
def test_a_missing_or_invalid_secret_file_is_refused(
    section: str, key: str, content: str | None, command: Command, tmp_path: Path, data: Path
) -> None:
    (tmp_path / "config.toml").write_text(f"[{section}]\n{key} = 'secret'\n")
    if content is not None:
        (tmp_path / "secret").write_text(content)

    result = command("doctor")

    check_one_line(result, 2, "secret")


PLATFORM = {
    "PORT": "5000",
    "DATABASE_URL": "postgres://ada@db.example/x",
    "REDIS_URL": "rediss://redis.example:1",
}


@pytest.mark.quick
def test_platform_variables_are_used_where_a_setting_is_unset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in PLATFORM.items():
        monkeypatch.setenv(name, value)

    settings = load_settings()

    assert settings.server.port == 5000
    assert settings.database_url == "postgresql+asyncpg://ada@db.example/x"
    assert (settings.redis_url, settings.embedded_redis) == ("rediss://redis.example:1", False)


@pytest.mark.quick
@pytest.mark.parametrize("source", ["file", "environment", "secret files"])
def test_a_setting_overrides_platform_variables(
    source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in PLATFORM.items():
        monkeypatch.setenv(name, value)
    explicit = {
        "SERVER__PORT": "8001",
        "DATABASE__URL": "postgresql://explicit/x",
        "REDIS__URL": "redis://explicit",
    }
    if source == "environment":
        for name, value in explicit.items():
            monkeypatch.setenv(f"TIDEMARK_{name}", value)
    else:
        for name in ("redis", "database"):
            (tmp_path / name).write_text(explicit[f"{name.upper()}__URL"])
        database, redis = (
            ("url_file = 'database'", "url_file = 'redis'")
            if source == "secret files"
            else ("url = 'postgresql://explicit/x'", "url = 'redis://explicit'")
        )
        (tmp_path / "config.toml").write_text(
            f"[server]\nport = 8001\n[database]\n{database}\n[redis]\n{redis}\n"
        )

    settings = load_settings()

    assert (settings.server.port, settings.database_url, settings.redis_url) == (
        8001,
        "postgresql+asyncpg://explicit/x",
        "redis://explicit",
    )


@pytest.mark.quick
def test_other_settings_in_a_section_do_not_disable_platform_variables(
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
def test_a_setting_equal_to_its_default_overrides_platform_variables(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text("[redis]\nurl = 'embedded'\n[database]\nurl = ''\n")
    for name, value in PLATFORM.items():
        monkeypatch.setenv(name, value)

    settings = load_settings()

    assert settings.embedded_redis
    assert settings.database_url == f"sqlite:///{tmp_path / '.tidemark' / 'tidemark.db'}"


@pytest.mark.quick
def test_empty_platform_variables_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PLATFORM:
        monkeypatch.setenv(name, "")

    settings = load_settings()

    assert (settings.server.port, settings.embedded_redis) == (8000, True)
