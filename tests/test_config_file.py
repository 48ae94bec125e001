"""`config.toml`: generated from the settings, complete, and equal to the defaults."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from server.errors import SettingsError
from server.settings import ProviderSettings, Settings, load_settings
from server.settings.__main__ import config_file

pytestmark = pytest.mark.quick

ROOT = Path(__file__).parent.parent


def sections() -> list[tuple[str, type[BaseModel]]]:
    """Every table that the file has to document, and its model."""
    models: list[tuple[str, Any]] = [
        (name, field.annotation)
        for name, field in Settings.model_fields.items()
        if name != "providers"
    ]
    return [*models, ("providers.openai", ProviderSettings)]


KEYS = [(name, model, key) for name, model in sections() for key in model.model_fields]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("PORT", "DATABASE_URL", "REDIS_URL", "TIDEMARK_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def test_the_committed_file_is_the_generated_one() -> None:
    committed = (ROOT / "config.toml").read_text()

    assert committed == config_file(), "run `python -m server.settings > config.toml`"


@pytest.mark.parametrize(("section", "model", "key"), KEYS, ids=[f"{s}.{k}" for s, _, k in KEYS])
def test_every_setting_has_a_description_and_is_in_the_file(
    section: str, model: type[BaseModel], key: str
) -> None:
    table = config_file().split(f"\n[{section}]\n", 1)[1].split("\n[", 1)[0]

    line = re.search(rf"^(?:# )?{key} = .+$", table, re.MULTILINE)

    assert model.model_fields[key].description
    assert line
    tomllib.loads(line[0].removeprefix("# "))


def test_loading_the_file_gives_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    by_default = load_settings()
    file.write_text(config_file())

    from_file = load_settings(file)

    assert from_file.model_dump() == by_default.model_dump()


def test_every_default_is_valid_when_uncommented() -> None:
    uncommented = re.sub(r"^# (\w+ = )", r"\1", config_file(), flags=re.MULTILINE)
    without_files = re.sub(r"^\w+_file = .*\n", "", uncommented, flags=re.MULTILINE)

    written = tomllib.loads(without_files)

    for section, model in sections():
        table: Any = written
        for step in section.split("."):
            table = table[step]
        assert set(table) == {key for key in model.model_fields if not key.endswith("_file")}
        model.model_validate(table)


@pytest.mark.parametrize("name", ["PORT", "DATABASE_URL", "REDIS_URL"])
def test_the_file_does_not_override_platform_variables(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.toml"
    file.write_text(config_file())
    by_default = load_settings(file)
    values = {"PORT": "5000", "DATABASE_URL": "postgresql://db/x", "REDIS_URL": "redis://r"}
    monkeypatch.setenv(name, values[name])

    settings = load_settings(file)

    assert settings.model_dump() != by_default.model_dump()


ERRORS = {
    "an integer": (
        "[server]\nport = 'abc'\n",
        "'abc' is not a valid value for server.port: expected an integer from 0 to 65535.",
    ),
    "a lower bound": (
        "[generation]\nactive_max_per_account = 0\n",
        (
            "0 is not a valid value for generation.active_max_per_account: "
            "expected an integer of at least 1."
        ),
    ),
    "a time": (
        "[generation]\nretention_s = -1\n",
        (
            "-1 is not a valid value for generation.retention_s: "
            "expected a number greater than 0 and at most 31536000."
        ),
    ),
    "a choice": (
        "[providers.openai]\nkind = 'other'\n",
        "'other' is not a valid value for providers.openai.kind: expected 'openai' or 'anthropic'.",
    ),
    "a pattern": (
        "[server]\npublic_url = 'chat.example'\n",
        (
            "'chat.example' is not a valid value for server.public_url: "
            "expected an http or https URL, or an empty string."
        ),
    ),
    "three values": (
        "[auth]\nguests = 'maybe'\n",
        "'maybe' is not a valid value for auth.guests: expected true, false or 'loopback'.",
    ),
    "a list": (
        "[server]\nallowed_hosts = 'a'\n",
        "'a' is not a valid value for server.allowed_hosts: expected a list of strings.",
    ),
    "an item of a list": (
        "[server]\nallowed_hosts = ['a', 1]\n",
        "1 is not a valid value for server.allowed_hosts.1: expected a list of strings.",
    ),
    "a path": (
        "[data]\ndir = 1\n",
        "1 is not a valid value for data.dir: expected a path.",
    ),
    "a table": (
        "server = 1\n",
        "1 is not a valid value for server: expected a table, [server].",
    ),
    "tables": (
        "providers = 1\n",
        "1 is not a valid value for providers: expected a table, [providers].",
    ),
    "a table of a provider": (
        "[providers]\nopenai = 1\n",
        "1 is not a valid value for providers.openai: expected a table, [providers.openai].",
    ),
    "a provider's name": (
        "[providers.'Open AI']\n",
        (
            "'Open AI' is not a valid value for providers.Open AI: "
            "expected a name of at most 32 lowercase letters, digits, '-' and '_'."
        ),
    ),
    "a combination": (
        "[providers.openai]\nmodels = ['a']\nprefill = ['b']\n",
        (
            "['b'] is not a valid value for providers.openai.prefill: "
            "expected names that are in models."
        ),
    ),
    "an unknown key": ("[server]\nprot = 1\n", "unknown setting server.prot."),
}


@pytest.mark.parametrize(("text", "message"), ERRORS.values(), ids=ERRORS)
def test_an_error_gives_the_value_and_what_was_expected(
    text: str, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)

    with pytest.raises(SettingsError) as raised:
        load_settings()

    assert str(raised.value) == f"config.toml: {message}"


def test_a_password_is_not_in_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://ada:secret@db/x")

    with pytest.raises(SettingsError) as raised:
        load_settings()

    assert str(raised.value) == (
        "environment: 'mysql://…@db/x' is not a valid value for DATABASE_URL: "
        "expected a postgresql:// or sqlite:/// URL, or an empty string."
    )
