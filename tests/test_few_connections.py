"""PostgreSQL with fewer connections than the processes would open."""

import asyncio
from collections.abc import Callable

import pytest

from server.history.database import DatabaseAway, Pool, open_database
from server.history.schema import migrate, schema_revision
from tests.client import Client, check_law
from tests.postgres import Postgres
from tests.system import System
from tests.waiting import condition

pytestmark = pytest.mark.slow

CONNECTIONS = 6
MESSAGES = 40


async def test_two_processes_share_few_connections_without_losing_anything(
    postgres: Postgres, new_system: Callable[..., System]
) -> None:
    system = new_system(database={"url": postgres.new_limited_url(CONNECTIONS), "pool_wait_s": 30})
    system.migrate()
    key = system.new_key()
    system.start()

    async with Client(system.web.url, key) as client:
        sent = await asyncio.gather(*[client.send(f"message {n}") for n in range(MESSAGES)])
        read = await asyncio.gather(*[client.read(each["generation_id"]) for each in sent])
        for each, events in zip(sent, read, strict=True):
            check_law(events, await client.snapshot(each["generation_id"]))

    assert {events[-1].type for events in read} == {"completed"}
    lines = [line for line in system.web.output().splitlines() if "connections_refused" in line]
    assert lines
    assert "too many connections" in lines[0]


async def test_a_transaction_without_a_connection_fails_with_the_reason(
    postgres: Postgres,
) -> None:
    url = postgres.new_limited_url(1)
    await migrate(url)

    async with (
        open_database(url) as taken,
        open_database(url, pool=Pool(size=2, wait_s=0.2)) as database,
    ):
        await taken.read(schema_revision)
        with pytest.raises(DatabaseAway, match="too many connections"):
            await database.read(schema_revision)


async def test_a_web_process_that_waits_for_the_database_says_so(
    postgres: Postgres, new_system: Callable[..., System]
) -> None:
    url = postgres.new_limited_url(1)
    await migrate(url)
    system = new_system(database={"url": url, "pool_wait_s": 0.1})

    async with open_database(url) as taken:
        await taken.read(schema_revision)
        web = system.start_web(wait=False)
        await condition(lambda: "waiting_for_database" in web.output())

    system.wait_ready(web)
    assert "too many connections" in web.output()
