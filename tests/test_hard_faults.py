"""Slow faults: frozen processes, old dumps, stuck servers, locked databases, busy deploys."""

import asyncio
import contextlib
import socket
import sqlite3
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from tests.client import Client, check_agreement, check_law
from tests.databases import both_databases
from tests.fault_table import note_test
from tests.readers import check_all, reading, some_tokens, types_of
from tests.system import System
from tests.waiting import condition

pytestmark = pytest.mark.slow


async def test_a_thawed_worker_writes_nothing_even_after_redis_restored_an_old_dump(
    new_system: Callable[..., System],
) -> None:
    system = new_system().start(workers=2)
    async with Client(system.web.url, system.new_key()) as client:
        sent = await client.send("/demo tokens=2500 rate=100\nold dump")
        async with reading(client, sent) as seen:
            await some_tokens(seen)
            system.redis().save()
            frozen = system.owner_of(sent["generation_id"])
            frozen.freeze()
            await condition(
                lambda: all(types_of(events) & {"resumed", "restarted"} for events in seen), 30
            )
            system.valkey.kill()
            system.start_redis()
            frozen.thaw()
        await check_all(client, sent, seen)


async def test_a_worker_death_and_an_old_dump_together_restart_the_answer(
    new_system: Callable[..., System],
) -> None:
    system = new_system().start(workers=2)
    async with Client(system.web.url, system.new_key()) as client:
        sent = await client.send("/demo tokens=500 rate=100\ndump and death")
        async with reading(client, sent) as seen:
            await some_tokens(seen, 5)
            system.redis().save()
            await some_tokens(seen, 60)
            system.owner_of(sent["generation_id"]).kill()
            system.valkey.kill()
            system.start_redis()
        await check_all(client, sent, seen)

    assert "restarted" in types_of(seen[0])


async def test_answers_continue_after_redis_was_frozen(new_system: Callable[..., System]) -> None:
    system = new_system().start(workers=2)
    async with Client(system.web.url, system.new_key()) as client:
        sent = await client.send("/demo tokens=1500 rate=100\nsilent")
        async with reading(client, sent) as seen:
            await some_tokens(seen)
            system.valkey.freeze()
            await asyncio.sleep(12)  # the duration of the fault
            system.valkey.thaw()
        await check_all(client, sent, seen)

    assert "restarted" not in types_of(seen[0])
    assert system.row(sent["generation_id"]).crashes == 0


async def test_answers_continue_after_redis_was_full(new_system: Callable[..., System]) -> None:
    system = new_system().start()
    async with Client(system.web.url, system.new_key()) as client:
        sent = await client.send("/demo tokens=500 rate=100\nfull")
        async with reading(client, sent) as seen:
            await some_tokens(seen)
            system.redis().config_set("maxmemory", 1024)
            await asyncio.sleep(3)  # the duration of the fault
            system.redis().config_set("maxmemory", 0)
        await check_all(client, sent, seen)

    assert "restarted" not in types_of(seen[0])


@pytest.mark.parametrize("locked_s", [5, 20])
async def test_a_locked_database_does_not_make_workers_stale(
    new_system: Callable[..., System], locked_s: int
) -> None:
    system = new_system().start(workers=3)
    async with Client(system.web.url, system.new_key()) as client:
        sent = [
            await client.send(f"/demo tokens={100 * (locked_s + 5)} rate=100\nlocked {n}")
            for n in range(3)
        ]
        async with contextlib.AsyncExitStack() as stack:
            seen = [await stack.enter_async_context(reading(client, each, 1)) for each in sent]
            for each in seen:
                await some_tokens(each)
            lock = sqlite3.connect(
                system.settings.data_dir / "tidemark.db", isolation_level=None, timeout=30
            )
            lock.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(locked_s)  # the duration of the fault
            lock.rollback()
            lock.close()
        for each, events in zip(sent, seen, strict=True):
            await check_all(client, each, events)
            row = system.row(each["generation_id"])
            assert (row.attempt, row.crashes) == (1, 0)
            assert "restarted" not in types_of(events[0])


async def test_a_worker_ends_while_its_slots_are_taken_and_the_database_is_locked(
    new_system: Callable[..., System],
) -> None:
    system = await asyncio.to_thread(lambda: new_system(worker={"concurrency": 1}).start())
    async with Client(system.web.url, await asyncio.to_thread(system.new_key)) as client:
        sent = await client.send("/demo tokens=200 rate=100\nends while the database is locked")
        async with reading(client, sent, 1) as seen:
            await some_tokens(seen)
            lock = sqlite3.connect(
                system.settings.data_dir / "tidemark.db", isolation_level=None, timeout=30
            )
            lock.execute("BEGIN IMMEDIATE")
            await condition(lambda: '"doing": "beat"' in system.worker.output())
            assert await asyncio.to_thread(system.worker.stop) == 0
            lock.rollback()
            lock.close()
            await asyncio.to_thread(system.start_worker)
        snapshot = await check_all(client, sent, seen)

    assert snapshot["status"] == "completed"


async def test_a_conversation_of_many_answers_is_deleted_while_redis_is_silent(
    new_system: Callable[..., System],
) -> None:
    """A time-out for each answer would be more than the client waits."""
    system = await asyncio.to_thread(lambda: new_system(worker={"concurrency": 8}).start())
    async with Client(system.web.url, await asyncio.to_thread(system.new_key)) as client:
        stalling = "/demo tokens=5 rate=0 stall_after=3"
        sent = [await client.send(stalling)]
        for _ in range(15):
            edited = await client.http.post(
                f"/api/messages/{sent[0]['question_id']}/edit", json={"text": stalling}
            )
            sent.append(edited.json())
        conversation_id = sent[0]["conversation_id"]
        await condition(
            lambda: sum(bool(system.row(each["generation_id"]).owner) for each in sent) == 8
        )
        system.valkey.freeze()
        deleted = await client.http.delete(f"/api/conversations/{conversation_id}", timeout=15)
        queued = [row for each in sent if not (row := system.row(each["generation_id"])).attempt]
        system.valkey.thaw()
        await condition(
            lambda: all(system.row(each["generation_id"]).finished_at for each in sent), 60
        )

    assert deleted.status_code == 204
    assert queued == []
    assert {system.row(each["generation_id"]).status for each in sent} == {"cancelled"}


@both_databases
async def test_running_and_queued_answers_wait_for_a_new_worker(
    new_system: Callable[..., System],
) -> None:
    system = new_system().start()
    async with Client(system.web.url, system.new_key()) as client:
        running = await client.send("/demo tokens=400 rate=100\nrunning")
        async with reading(client, running) as seen:
            await some_tokens(seen)
            system.worker.kill()
            queued = await client.send("/demo tokens=20 rate=0\nqueued")
            system.redis().delete("tidemark:jobs:answers")  # its job is lost as well
            system.start_worker()
        await check_all(client, running, seen)
        events = await client.read_through(queued["generation_id"])
        check_law(events, await client.snapshot(queued["generation_id"]))


@both_databases
async def test_three_hundred_answers_survive_the_death_of_one_of_two_workers(
    new_system: Callable[..., System],
) -> None:
    system = new_system(worker={"concurrency": 256, "drain_s": 1}).start(workers=2)
    async with Client(system.web.url, system.new_key()) as client:
        sent: list[dict[str, Any]] = []
        for start in range(0, 300, 50):
            sent += await asyncio.gather(
                *(
                    client.send(f"/demo tokens=200 rate=20\nmany {n}")
                    for n in range(start, start + 50)
                )
            )
        seen: list[list[Any]] = [[] for _ in sent]
        async with asyncio.TaskGroup() as tasks:
            for each, events in zip(sent, seen, strict=True):
                tasks.create_task(client.read_through(each["generation_id"], events))
            await condition(lambda: sum(len(events) > 5 for events in seen) > 250, 60)
            system.worker.kill()
        for each, events in zip(sent, seen, strict=True):
            check_law(events, await client.snapshot(each["generation_id"]))
    note_test(seen)


@both_databases
async def test_a_deploy_under_load_loses_no_events_and_counts_no_crash(
    new_system: Callable[..., System],
) -> None:
    system = new_system(worker={"drain_s": 0}).start(webs=2, workers=2)
    old_webs, old_workers = system.of("web"), system.of("worker")
    async with Client(system.web.url, system.new_key()) as client:
        sent = [await client.send(f"/demo tokens=1500 rate=100\ndeploy {n}") for n in range(20)]
        urls = [web.url for web in old_webs]
        seen: list[list[Any]] = [[] for _ in sent]
        readers = [Client(urls[n % 2], client.key) for n in range(len(sent))]
        async with asyncio.TaskGroup() as tasks:
            for reader, each, events in zip(readers, sent, seen, strict=True):
                tasks.create_task(reader.read_through(each["generation_id"], events, urls))
            await condition(lambda: all(len(events) > 5 for events in seen), 30)
            for old in old_workers:
                system.start_worker()
                await asyncio.to_thread(old.stop)
            for n, old in enumerate(old_webs):
                urls[n] = (await asyncio.to_thread(system.start_web)).url
                await asyncio.to_thread(old.stop)
        for reader in readers:
            await reader.http.aclose()
        async with Client(urls[0], client.key) as late:
            for each, events in zip(sent, seen, strict=True):
                check_law(events, await late.snapshot(each["generation_id"]))
                check_agreement([events, await late.read_through(each["generation_id"])])
                assert "restarted" not in types_of(events)
    note_test(seen)
    assert {system.row(each["generation_id"]).crashes for each in sent} == {0}


async def test_readers_that_stop_reading_are_dropped_and_use_no_memory(
    new_system: Callable[..., System],
) -> None:
    system = new_system(
        generation={"output_max_tokens": 1_000_000, "output_max_bytes": 16_000_000}
    ).start()
    key = system.new_key()
    async with Client(system.web.url, key) as client:
        sent = await client.send("/demo tokens=1000000 rate=0\nstuck")
        before = psutil.Process(system.web.pid).memory_info().rss
        stuck = [
            open_stream_and_never_read(system.web.url, sent["events_url"], key) for _ in range(20)
        ]
        events = await client.read_through(sent["generation_id"])
        peak = psutil.Process(system.web.pid).memory_info().rss

        async def all_dropped() -> None:
            while (await client.get("/status"))["web"]["open_streams"]:
                await asyncio.sleep(0.1)

        await asyncio.wait_for(all_dropped(), 40)
        for connection in stuck:
            connection.close()
        check_law(events, await client.snapshot(sent["generation_id"]))
    assert peak - before < 64 * 1024 * 1024


def open_stream_and_never_read(url: str, path: str, key: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((host, int(port)))
    connection.sendall(
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
    )
    return connection
