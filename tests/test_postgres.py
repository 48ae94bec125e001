"""PostgreSQL: the schema, races, and outages of the server."""

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import Session

from server.history.database import DatabaseAway, open_database, sqlite_engine
from server.history.schema import REVISION, schema_revision
from tests.client import Client, check_law, content_of
from tests.databases import on_postgresql, on_sqlite
from tests.postgres import Postgres
from tests.readers import check_all, reading, types_of
from tests.schema_differences import differences
from tests.system import System
from tests.upstream import MODELS, Upstream

Make = Callable[..., System]

pytestmark = [pytest.mark.slow, on_postgresql]


# The schema


def migrate_twice_at_once(system: System) -> None:
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(system.run, ["migrate"] * 2))
    system.run("migrate")


async def test_migrating_repeatedly_creates_the_declared_tables(new_system: Make) -> None:
    system = new_system()
    await asyncio.to_thread(migrate_twice_at_once, system)

    engine = create_async_engine(system.settings.database_url)
    async with engine.connect() as connection:
        found = await connection.run_sync(differences)
        # It uses only `execute`, which a connection has as well.
        revision = await connection.run_sync(schema_revision)  # type: ignore[arg-type]
    await engine.dispose()

    assert (found, revision) == ([], REVISION)


@on_sqlite
def test_migrating_repeatedly_creates_the_declared_tables_on_sqlite(new_system: Make) -> None:
    system = new_system()
    assert system.settings.database_url.startswith("sqlite")
    migrate_twice_at_once(system)

    engine = sqlite_engine(system.settings.database_url, begin="BEGIN")
    with engine.connect() as connection:
        found = differences(connection)
    engine.dispose()

    assert found == []


# Answers


async def test_a_streamed_answer_equals_the_stored_one(tidemark: System, client: Client) -> None:
    sent = await client.send("/demo tokens=60 rate=200 reasoning=10 tool=1\nwhole ä 🌊")

    async with reading(client, sent) as seen:
        pass

    snapshot = await check_all(client, sent, seen)
    assert [part["type"] for part in snapshot["content"]] == ["reasoning", "text", "tool_call"]
    assert (snapshot["status"], snapshot["finish_reason"]) == ("completed", "tool_calls")
    assert tidemark.row(sent["generation_id"]).parts == snapshot["content"] == content_of(seen[0])


async def test_any_text_of_a_model_can_be_stored(new_system: Make) -> None:
    with Upstream() as upstream:
        providers = {"up": {"base_url": upstream.url, "models": MODELS}}
        system = await asyncio.to_thread(lambda: new_system(providers=providers).start())
        async with Client(system.web.url, await asyncio.to_thread(system.new_key)) as client:
            for model, status in (
                ("nul", "completed"),
                ("surrogates", "completed"),
                ("error-text", "failed"),
                ("400", "failed"),
            ):
                sent = await client.send("hello", model=model)
                events = await client.read_through(sent["generation_id"])
                snapshot = await client.snapshot(sent["generation_id"])
                check_law(events, snapshot)
                assert snapshot["status"] == status
                assert (snapshot["error"] or {}).get("code") != "internal"
                assert "\0" not in str(snapshot)


async def test_the_limit_is_exact_with_fifty_concurrent_messages(new_system: Make) -> None:
    system = await asyncio.to_thread(
        lambda: new_system(generation={"active_max_per_account": 7}).start(webs=2, workers=0)
    )
    key = await asyncio.to_thread(system.new_key)
    async with (
        Client(system.of("web")[0].url, key) as one,
        Client(system.of("web")[1].url, key) as two,
    ):
        responses = await asyncio.gather(
            *(each.http.post("/api/messages", json={"text": "x"}) for each in (one, two) * 25)
        )
        listed = (await one.get("/api/conversations", limit=100))["data"]

    assert Counter(response.status_code for response in responses) == {202: 7, 429: 43}
    assert len(listed) == 7


async def test_forty_concurrent_answers_on_two_workers_complete(
    tidemark: System, client: Client
) -> None:
    sent = await asyncio.gather(
        *(client.send(f"/demo tokens={200 + n} rate=60\nmany {n}") for n in range(40))
    )

    seen = await asyncio.gather(*(client.read_through(each["generation_id"]) for each in sent))

    for events, each in zip(seen, sent, strict=True):
        check_law(events, await client.snapshot(each["generation_id"]))
        assert events[-1].type == "completed"
        assert not types_of(events) & {"restarted", "resumed"}
    assert len({tidemark.row(each["generation_id"]).owner for each in sent}) == 2


async def test_concurrent_stops_and_completions_cause_no_deadlock_and_no_5xx(
    tidemark: System, own_key: str
) -> None:
    webs = [web.url for web in tidemark.of("web")]

    async def race(n: int) -> None:
        async with (
            Client(webs[n % 2], own_key) as client,
            Client(webs[(n + 1) % 2], own_key) as other,
        ):
            sent = await client.send(f"/demo tokens={n % 7 + 1} rate=0\nrace {n}")
            reader = asyncio.create_task(client.read_through(sent["generation_id"]))
            await asyncio.sleep(n % 8 / 500)
            path = f"/api/generations/{sent['generation_id']}/cancel"
            responses = await asyncio.gather(client.http.post(path), other.http.post(path))
            events = await reader
            snapshot = await client.snapshot(sent["generation_id"])
        assert [response.status_code for response in responses] == [200, 200], [
            response.text for response in responses
        ]
        check_law(events, snapshot)
        for response in responses:
            assert response.json()["status"] == snapshot["status"]

    for start in range(0, 40, 10):
        await asyncio.gather(*(race(n) for n in range(start, start + 10)))
    for process in tidemark.processes:
        assert "deadlock" not in process.output().lower()


# Outages


async def test_a_value_that_cannot_be_stored_is_not_an_outage(postgres: Postgres) -> None:
    def too_large(session: Session) -> None:
        session.execute(text("SELECT CAST(:number AS integer)"), {"number": 2**40})

    url = postgres.new_url().replace("postgresql://", "postgresql+asyncpg://")
    async with open_database(url) as database:
        with pytest.raises(DBAPIError):
            await database.write(too_large)


async def test_a_missing_database_is_an_outage(tmp_path: Path) -> None:
    async with open_database(f"postgresql+asyncpg://postgres@/nothing?host={tmp_path}") as database:
        with pytest.raises(DatabaseAway):
            await database.read(schema_revision)


async def test_requests_succeed_after_a_restart_of_postgresql(
    tidemark: System, client: Client, postgres: Postgres
) -> None:
    await asyncio.gather(*(client.get("/api/conversations") for _ in range(20)))

    await asyncio.to_thread(postgres.stop)
    await asyncio.to_thread(postgres.start)

    responses = await asyncio.gather(
        *(
            client.http.post("/api/messages", json={"text": "/demo tokens=2 rate=0"})
            for _ in range(20)
        )
    )
    assert [response.status_code for response in responses] == [202] * 20, [
        response.text for response in responses
    ]
    for response in responses:
        assert (await client.read_through(response.json()["generation_id"]))[-1].type == "completed"
