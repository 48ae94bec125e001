"""`tidemark key` and `tidemark user`."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from server.identity.secrets import is_key
from tests.command_line.commands import Command, Result, check_one_line


@pytest.mark.quick
def test_a_key_is_shown_once_and_listed_by_its_prefix(command: Command, data: Path) -> None:
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
def test_a_list_does_not_wrap_long_values(command: Command, data: Path) -> None:
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
def test_revoking_a_key_is_idempotent_and_an_unknown_key_is_refused(
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
def test_a_key_may_have_an_expiry(expires: str, days: int, command: Command, data: Path) -> None:
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
def test_an_invalid_expiry_is_refused(expires: str, command: Command, data: Path) -> None:
    result = command("key", "create", "x", f"--expires={expires}")

    check_one_line(result, 2, "--expires", "90d")
    assert key_ids(data) == []


@pytest.mark.quick
def test_email_addresses_are_case_insensitive(command: Command, data: Path) -> None:
    assert command("user", "create", "Ada@Example.org") == Result(0, "", "")

    check_one_line(command("user", "create", "ada@example.ORG"), 1, "already")
    assert command("user", "link", "ADA@example.org").code == 0
    assert command("key", "create", "x", "--account", "Ada@Example.org").code == 0
    assert "ada@example.org" in command("user", "list").out


def test_the_admin_flag_has_no_effect(command: Command, data: Path) -> None:
    created = command("user", "create", "ada@example.org", "--admin")

    assert (created.code, created.out) == (0, "")
    assert created.err == "tidemark: --admin has no effect: users have no roles yet.\n"
    assert "ada@example.org" in command("user", "list").out


@pytest.mark.quick
@pytest.mark.parametrize(
    "email",
    ["", " ", "ada", "@example.org", "ada@", "a da@example.org", "ada@exam ple.org", "a@b@c"],
)
def test_an_invalid_email_address_is_refused(email: str, command: Command, data: Path) -> None:
    check_one_line(command("user", "create", email), 2, "ada@example.org")


@pytest.mark.quick
def test_an_unknown_user_gets_no_link_and_no_key(command: Command, data: Path) -> None:
    check_one_line(command("user", "link", "nobody@example.org"), 1, "nobody@example.org")
    check_one_line(
        command("key", "create", "x", "--account", "nobody@example.org"), 1, "nobody@example.org"
    )
    assert command("key", "create", "x", "--account", "").code == 2
    assert key_ids(data) == []


@pytest.mark.quick
def test_a_link_uses_the_public_url_or_the_local_address(
    command: Command, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("user", "create", "ada@example.org")
    monkeypatch.setenv("TIDEMARK_SERVER__HOST", "0.0.0.0")
    local = command("user", "link", "ada@example.org")
    monkeypatch.setenv("TIDEMARK_SERVER__PUBLIC_URL", "https://chat.example/")

    public = command("user", "link", "ada@example.org")

    assert re.fullmatch(r"http://127\.0\.0\.1:8000/#token=[\w-]{40,}\n", local.out)
    assert re.fullmatch(r"https://chat\.example/#token=[\w-]{40,}\n", public.out)


NEED_A_DATABASE = [
    ["key", "create", "x"],
    ["key", "list"],
    ["key", "revoke", "x"],
    ["user", "create", "a@b"],
    ["user", "list"],
    ["user", "link", "a@b"],
]


@pytest.mark.quick
@pytest.mark.parametrize("arguments", NEED_A_DATABASE, ids=" ".join)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_commands_that_need_a_database_create_no_data_folder(
    arguments: list[str],
    elsewhere: bool,
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if elsewhere:
        monkeypatch.setenv("TIDEMARK_DATABASE__URL", f"sqlite:///{tmp_path / 'other.db'}")

    result = command(*arguments)

    check_one_line(result, 1, "tidemark up", "tidemark migrate")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.quick
def test_keys_are_stored_in_the_database_of_a_secret_file(
    command: Command, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data.rename(tmp_path / "elsewhere")
    (tmp_path / "url").write_text(f"sqlite:///{tmp_path / 'elsewhere' / 'tidemark.db'}\n")
    monkeypatch.setenv("TIDEMARK_DATABASE__URL_FILE", str(tmp_path / "url"))

    assert command("key", "create", "x").code == 0
    assert len(key_ids(tmp_path / "elsewhere")) == 1


@pytest.mark.quick
def test_a_database_with_an_older_schema_is_refused(command: Command, data: Path) -> None:
    (data / "tidemark.db").write_bytes(b"")

    check_one_line(command("key", "list"), 1, "tidemark migrate")
    doctor = command("doctor")
    assert doctor.code == 1
    assert "tidemark migrate" in " ".join(doctor.out.split())
