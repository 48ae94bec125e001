"""PostgreSQL's addresses as hosts hand them out, and a pooler in transaction mode."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psutil
import pytest

from server.bench.processes import free_port
from server.errors import SettingsError
from server.history.database import open_database
from server.history.schema import migrate, schema_revision
from server.postgres_url import PostgresUrl, parse_postgres_url
from server.settings import load_settings
from tests.postgres import Postgres
from tests.waiting import until

STATEMENTS = 20
"""Enough for the pooler to have given each of two clients the connection of the other."""


@pytest.mark.quick
@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        (
            "postgres://u:p%40w@h:5433/d?sslmode=require&channel_binding=require",
            PostgresUrl("postgresql://u:p%40w@h:5433/d?sslmode=require", None, False, False),
        ),
        (
            "postgresql://h/d?connect_timeout=10&keepalives=1&application_name=a%20b",
            PostgresUrl("postgresql://h/d?application_name=a+b", 10.0, False, False),
        ),
        (
            "postgresql://h/d?ssl=true",
            PostgresUrl("postgresql://h/d?sslmode=require", None, False, False),
        ),
        (
            "postgresql+asyncpg://h/d?ssl=verify-full",
            PostgresUrl("postgresql://h/d?sslmode=verify-full", None, False, False),
        ),
        (
            "postgresql://h/d?sslmode=verify-full&sslrootcert=system",
            PostgresUrl("postgresql://h/d", None, True, False),
        ),
        (
            "postgresql+asyncpg://h:6543/d?pgbouncer=true&connect_timeout=0",
            PostgresUrl("postgresql://h:6543/d", None, False, True),
        ),
        (
            "postgresql://a:1,[::1]:2/d?pooler=transaction&target_session_attrs=any",
            PostgresUrl("postgresql://a:1,[::1]:2/d?target_session_attrs=any", None, False, True),
        ),
    ],
)
def test_addresses_mean_what_they_mean_to_psql(url: str, parsed: PostgresUrl) -> None:
    assert parse_postgres_url(url) == parsed


@pytest.mark.quick
@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?sslmod=require", "'sslmod'"),
        ("?sslmode=always", "sslmode to be one of disable"),
        ("?connect_timeout=soon", "connect_timeout to be a number"),
        (":port", "a port number instead of 'port'"),
    ],
)
@pytest.mark.parametrize("variable", ["TIDEMARK_DATABASE__URL", "DATABASE_URL"])
def test_an_address_that_is_not_valid_is_one_line(
    query: str, words: str, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = "postgresql://u:secret@h"
    url = f"{base}{query}/d" if query.startswith(":") else f"{base}/d{query}"
    monkeypatch.setenv(variable, url)

    with pytest.raises(SettingsError) as raised:
        load_settings(None, tmp_path)

    assert words in str(raised.value)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


async def test_the_options_of_an_address_reach_the_server(postgres: Postgres) -> None:
    url = postgres.new_url()
    options = "sslmode=prefer&application_name=tides&options=-c%20statement_timeout%3D12345"
    options += "&connect_timeout=5&channel_binding=prefer"
    url += f"{'&' if '?' in url else '?'}{options}"
    assert (await migrate(url))[0] == 0

    async with open_database(url) as database:
        shown = [
            await database.read(
                lambda session, name=name: (
                    session.connection().exec_driver_sql(f"SHOW {name}").scalar()
                )  # type: ignore[misc]
            )
            for name in ("application_name", "statement_timeout")
        ]
    assert shown == ["tides", "12345ms"]


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.fixture
def pooled_url(postgres: Postgres) -> Iterator[str]:
    """The address of a new database behind PgBouncer, which gives a connection per transaction."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("no PgBouncer")
        pytest.skip("no PgBouncer here")
    address = urlsplit(postgres.new_url())
    [folder] = parse_qs(address.query)["host"]
    owner = Path(folder).owner()
    port = free_port()
    # Not in pytest's folder, which only one user can read: as root, PgBouncer runs as another.
    settings = Path(tempfile.gettempdir()) / f"tidemark-pgbouncer-{port}.ini"
    settings.write_text(f"""
[databases]
* = host={folder} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 3
{f"user = {owner}" if os.geteuid() == 0 else ""}
""")
    settings.chmod(0o644)
    process = subprocess.Popen([program, settings], stderr=subprocess.DEVNULL)
    try:
        until(lambda: is_listening(port), "PgBouncer")
        yield f"postgresql://postgres@127.0.0.1:{port}{address.path}"
    finally:
        psutil.Process(process.pid).terminate()
        process.wait(10)
        settings.unlink()


async def test_a_pooler_in_transaction_mode_works(pooled_url: str) -> None:
    url = f"{pooled_url}?pooler=transaction"
    assert (await migrate(url))[0] == 0

    async with open_database(url) as one, open_database(url) as other:
        for _ in range(STATEMENTS):
            for database in (one, other):
                assert await database.read(schema_revision) > 0


@pytest.mark.slow
def test_a_pooler_that_is_not_named_is_explained(pooled_url: str, tmp_path: Path) -> None:
    asyncio.run(migrate(f"{pooled_url}?pooler=transaction"))
    command = [sys.executable, "-m", "server", "key", "list", "--data-dir", str(tmp_path)]
    environment = os.environ | {"TIDEMARK_DATABASE__URL": pooled_url}

    # Processes use the same names for their statements.
    ended = [
        subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        for _ in range(4)
    ]

    explained = [each for each in ended if "add pooler=transaction to database.url" in each.stderr]
    assert explained
    assert {(each.returncode, each.stderr.count("\n")) for each in explained} == {(1, 1)}
    assert all(each.returncode == 0 for each in ended if each not in explained)
