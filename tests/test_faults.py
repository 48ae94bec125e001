"""Processes that die, restart or freeze: readers lose nothing, repeat nothing, and finish."""

import asyncio
from collections.abc import Callable

import pytest

from tests.client import Client, check_law
from tests.databases import both_databases
from tests.readers import check_all, reading, some_tokens, types_of
from tests.system import System
from tests.waiting import condition

PACED = "tokens=300 rate=100"


@both_databases
async def test_another_worker_continues_the_answer_of_a_dead_one(
    new_system: Callable[..., System],
) -> None:
    system = new_system().start(workers=2)
    async with Client(system.web.url, system.new_key()) as client:
        sent = await client.send(f"/demo {PACED}\nresume")
        async with reading(client, sent) as seen:
            await some_tokens(seen)
            system.owner_of(sent["generation_id"]).kill()
        snapshot = await check_all(client, sent, seen)

    assert snapshot["status"] == "completed"
    assert snapshot["usage"]["estimated"] is True
    assert "resumed" in types_of(seen[0])
    assert "restarted" not in types_of(seen[0])


@pytest.mark.slow
async def test_a_model_that_cannot_continue_starts_over_with_a_restarted_event(
    new_system: Callable[..., System],
) -> None:
    system = new_system().start(workers=2)
    async with Client(system.web.url, system.new_key()) as client:
        sent = await client.send(f"/demo {PACED} continue=0\nrestart")
        async with reading(client, sent) as seen:
            await some_tokens(seen)
            system.owner_of(sent["generation_id"]).kill()
        snapshot = await check_all(client, sent, seen)

    assert "restarted" in types_of(seen[0])
    assert len(snapshot["text"].split(" ")) == 300
    assert snapshot["usage"]["output_tokens"] > 300, "usage must include both attempts"


@pytest.mark.slow
async def test_fifty_readers_resume_after_their_web_process_dies(
    new_system: Callable[..., System],
) -> None:
    system = new_system().start(webs=2)
    dying, other = system.of("web")
    async with Client(dying.url, system.new_key()) as client:
        sent = await client.send(f"/demo {PACED}\nfifty")
        async with reading(client, sent, 50, [dying.url, other.url]) as seen:
            await some_tokens(seen, 5)
            dying.kill()
        client.http.base_url = other.url  # type: ignore[assignment]  # a string is accepted
        await check_all(client, sent, seen)


@pytest.mark.slow
async def test_readers_survive_a_restart_of_valkey(
    new_system: Callable[..., System],
) -> None:
    system = new_system().start()
    async with Client(system.web.url, system.new_key()) as client:
        sent = await client.send(f"/demo {PACED}\nvalkey")
        async with reading(client, sent) as seen:
            await some_tokens(seen)
            system.valkey.kill()
            system.start_redis()
        await check_all(client, sent, seen)

    assert "restarted" not in types_of(seen[0])


async def test_the_owner_rewrites_its_log_after_redis_loses_it(
    new_system: Callable[..., System],
) -> None:
    system = new_system().start()
    async with Client(system.web.url, system.new_key()) as client:
        sent = await client.send(f"/demo {PACED}\nflush")
        async with reading(client, sent) as seen:
            await some_tokens(seen)
            system.redis().flushall()
        await check_all(client, sent, seen)

    assert "restarted" not in types_of(seen[0])


@pytest.mark.slow
@both_databases
async def test_an_answer_restarts_when_its_log_and_its_worker_are_lost_together(
    new_system: Callable[..., System],
) -> None:
    system = new_system().start(workers=2)
    async with Client(system.web.url, system.new_key()) as client:
        sent = await client.send(f"/demo {PACED}\nboth")
        async with reading(client, sent) as seen:
            await some_tokens(seen)
            system.owner_of(sent["generation_id"]).kill()
            system.redis().flushall()
        await check_all(client, sent, seen)

    restarted = next(event for event in seen[0] if event.type == "restarted")
    assert restarted.seq == 1_000_001


@both_databases
async def test_a_deploy_hands_over_answers_without_counting_a_crash(
    new_system: Callable[..., System],
) -> None:
    system = new_system(worker={"drain_s": 0}).start(workers=2)
    async with Client(system.web.url, system.new_key()) as client:
        sent = await client.send(f"/demo {PACED}\ndeploy")
        async with reading(client, sent) as seen:
            await some_tokens(seen)
            assert system.owner_of(sent["generation_id"]).stop() == 0
        snapshot = await check_all(client, sent, seen)

    assert snapshot["attempt"] == 2
    assert system.row(sent["generation_id"]).crashes == 0
    assert (
        next(event.data for event in seen[0] if event.type == "resumed")["reason"] == "handed_over"
    )


async def test_a_stopping_web_process_ends_streams_between_events(
    new_system: Callable[..., System],
) -> None:
    system = new_system().start(webs=2)
    stopping, other = system.of("web")
    async with Client(stopping.url, system.new_key()) as client:
        sent = await client.send(f"/demo {PACED}\nstop web")
        async with reading(client, sent, 5, [stopping.url, other.url]) as seen:
            await some_tokens(seen, 5)
            assert await asyncio.to_thread(stopping.stop) == 0
        client.http.base_url = other.url  # type: ignore[assignment]
        await check_all(client, sent, seen)


@pytest.mark.slow
@both_databases
async def test_a_worker_thawed_after_losing_its_answer_writes_nothing(
    new_system: Callable[..., System],
) -> None:
    system = new_system().start(workers=2)
    async with Client(system.web.url, system.new_key()) as client:
        sent = await client.send("/demo tokens=1500 rate=100\nfrozen")
        async with reading(client, sent) as seen:
            await some_tokens(seen)
            frozen = system.owner_of(sent["generation_id"])
            frozen.freeze()
            await condition(lambda: all("resumed" in types_of(events) for events in seen))
            frozen.thaw()
        await check_all(client, sent, seen)

    assert system.row(sent["generation_id"]).crashes == 1


@both_databases
async def test_stopping_in_any_state_keeps_the_text_so_far(
    new_system: Callable[..., System],
) -> None:
    system = new_system().start(workers=0)
    async with Client(system.web.url, system.new_key()) as client:
        queued = await client.send("/demo tokens=10\nqueued")
        async with reading(client, queued, 2) as seen:
            await condition(lambda: all(seen))
            assert (await client.cancel(queued["generation_id"], wait_s=20))[
                "status"
            ] == "cancelled"
        assert (await check_all(client, queued, seen))["text"] == ""

        system.start_worker()
        for script in (
            "tokens=1000 rate=100\nwriting",
            "tokens=1000 rate=100 stall_after=40\nstalled",
            "tokens=5 first_token_ms=60000\nsilent",
        ):
            sent = await client.send(f"/demo {script}")
            async with reading(client, sent, 2) as seen:
                wanted = 2 if "silent" in script else 9
                await condition(
                    lambda seen=seen, wanted=wanted: all(len(events) >= wanted for events in seen)
                )  # type: ignore[misc]
                assert (await client.cancel(sent["generation_id"], wait_s=20))[
                    "status"
                ] == "cancelled", script
            snapshot = await check_all(client, sent, seen)
            assert bool(snapshot["text"]) == ("silent" not in script)
            assert (await client.cancel(sent["generation_id"], wait_s=20)) == snapshot


@pytest.mark.slow
@both_databases
async def test_stop_ends_an_answer_whose_workers_are_all_dead(
    new_system: Callable[..., System],
) -> None:
    system = new_system().start()
    async with Client(system.web.url, system.new_key()) as client:
        sent = await client.send("/demo tokens=1000 rate=100\nownerless")
        async with reading(client, sent) as seen:
            await some_tokens(seen)
            system.worker.kill()
            await client.cancel(sent["generation_id"])
        snapshot = await check_all(client, sent, seen)

    assert snapshot["status"] == "cancelled"
    assert snapshot["text"]
    assert snapshot["usage"]["output_tokens"] == len(snapshot["text"].encode()) // 4
    assert snapshot["usage"]["input_tokens"] > 0


@pytest.mark.slow
async def test_a_message_sent_while_redis_is_down_is_answered_once_it_returns(
    new_system: Callable[..., System],
) -> None:
    system = new_system().start()
    async with Client(system.web.url, system.new_key()) as client:
        system.valkey.kill()
        sent = await client.send("/demo tokens=20 rate=0\nno redis")
        async with reading(client, sent) as seen:
            await condition(lambda: all(events and events[0].type == "queued" for events in seen))
            system.start_redis()
        await check_all(client, sent, seen)


@both_databases
@pytest.mark.slow
async def test_an_answer_without_a_log_is_streamed_as_a_snapshot(
    new_system: Callable[..., System],
) -> None:
    system = new_system().start()
    async with Client(system.web.url, system.new_key()) as client:
        sent = await client.send("/demo tokens=20 rate=200\ngone")
        whole = await client.read_through(sent["generation_id"])
        await condition(lambda: system.row(sent["generation_id"]).sealed)
        system.redis().flushall()

        late = await client.read(sent["generation_id"])
        from_the_middle = await client.read(sent["generation_id"], after=3)

        snapshot = await client.snapshot(sent["generation_id"])
    for events in (whole, late, from_the_middle):
        check_law(events, snapshot)
    assert [event.type for event in late] == ["queued", "snapshot", "completed"]
    assert [event.type for event in from_the_middle] == ["snapshot", "completed"]


@pytest.mark.slow
@both_databases
async def test_an_answer_that_kills_every_worker_fails(
    new_system: Callable[..., System],
) -> None:
    system = new_system(generation={"attempts_max": 2}).start(workers=3)
    async with Client(system.web.url, system.new_key()) as client:
        sent = await client.send("/demo tokens=100000 rate=100\ndeadly")
        async with reading(client, sent) as seen:
            for attempt in (1, 2):
                await condition(
                    lambda n=attempt: sum(e.type in ("started", "resumed") for e in seen[0]) == n,
                    30,
                )  # type: ignore[misc]
                await some_tokens(seen)
                system.owner_of(sent["generation_id"]).kill()
        snapshot = await check_all(client, sent, seen)

    assert snapshot["error"]["code"] == "attempts_exhausted"


async def test_stop_and_completion_race_to_a_single_end(tidemark: System, client: Client) -> None:
    async def race(n: int) -> None:
        sent = await client.send(f"/demo tokens={n % 7 + 1} rate=0\nrace {n}")
        reader = asyncio.create_task(client.read_through(sent["generation_id"]))
        await asyncio.sleep(n % 5 / 1000)
        answered = await client.cancel(sent["generation_id"])
        events = await reader
        snapshot = await client.snapshot(sent["generation_id"])
        check_law(events, snapshot)
        assert answered["status"] == snapshot["status"]

    for start in range(0, 60, 10):
        await asyncio.gather(*(race(n) for n in range(start, start + 10)))
