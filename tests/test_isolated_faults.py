"""A damaged log or a hanging call affects no other logs, feeds or subscriptions."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from arq.connections import ArqRedis
from redis import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import TimeoutError as RedisTimeoutError

from server.generate.owned_log import Found
from server.metrics import LOG_LOSSES
from server.stream.events import FIRST_SEQ, Event, EventType, make_event
from server.stream.feed import ENDS_AT_ONCE, KEPT_BYTES, End, Feed, Feeds
from server.stream.link import Link
from server.stream.log import close_logs, log_keys, read_logs
from server.stream.tail import Listener, Tail
from tests.waiting import condition
from tests.writing import Writing, running_writer

pytestmark = pytest.mark.quick

PREFIX = "isolated:"
QUEUED = make_event(FIRST_SEQ, EventType.QUEUED, {})


def delta(seq: int) -> Event:
    return make_event(seq, EventType.TEXT_DELTA, {"part": 0, "text": f"{seq} "})


def end(seq: int, content: str = "") -> End:
    snapshot = make_event(seq - 1, EventType.SNAPSHOT, {"content": content})
    return End(snapshot, make_event(seq, EventType.COMPLETED, {}))


async def write(redis: ArqRedis, id: str, entries: dict[int, bytes]) -> None:
    for seq, entry in entries.items():
        await redis.xadd(log_keys(PREFIX, id).events, {"e": entry}, id=f"{seq}-0")


async def test_a_damaged_log_does_not_prevent_reading_others(
    redis: ArqRedis,
) -> None:
    good = {seq: delta(seq).encoded() for seq in (2, 3)}
    await write(redis, "good", good)
    await write(redis, "damaged", {2: good[2], 3: b"nonsense", 4: delta(4).encoded()})
    await redis.set(log_keys(PREFIX, "no stream").events, "x")
    ids = ["damaged", "no stream", "good"]

    logs = await read_logs(redis, [(log_keys(PREFIX, id), 0) for id in ids], 10)

    assert logs == [[delta(2)], [], [delta(2), delta(3)]]


async def test_reading_continues_at_the_restart_after_a_damaged_entry(
    redis: ArqRedis,
) -> None:
    restarted = make_event(1_000_001, EventType.RESTARTED, {})
    await write(redis, "x", {2: b"nonsense", 3: delta(3).encoded(), 1_000_001: restarted.encoded()})

    [events] = await read_logs(redis, [(log_keys(PREFIX, "x"), 0)], 10)

    assert events == [restarted]


async def test_a_log_that_cannot_be_closed_does_not_prevent_closing_others(
    redis: ArqRedis,
) -> None:
    await redis.set(log_keys(PREFIX, "no hash").state, "x")
    await redis.hset(log_keys(PREFIX, "good").state, "seq", "4")
    await redis.script_flush()
    closings = [(log_keys(PREFIX, id), end(5).terminal) for id in ("no hash", "good", "gone")]

    closed = await close_logs(redis, closings, 60)

    assert isinstance(closed[0], Exception)
    assert closed[1:] == [True, False]


async def test_feeds_that_end_while_redis_hangs_share_one_call(
    redis: ArqRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    async def hang(_pipe: Pipeline, **_: Any) -> Any:
        nonlocal calls
        calls += 1
        raise RedisTimeoutError

    async def ends(ids: Sequence[str]) -> dict[str, End]:
        return {id: end(9) for id in ids}

    monkeypatch.setattr(Pipeline, "execute", hang)
    feeds = Feeds(redis, Tail(""), ends, key_prefix=PREFIX, retention_s=60)
    with (
        feeds.feed("one", QUEUED) as one,
        feeds.feed("two", QUEUED) as two,
        feeds.feed("three", QUEUED) as three,
    ):
        feeds._maybe_ended |= {"one", "two", "three"}
        feeds._end_due.set()
        ending = asyncio.create_task(feeds.end())
        await condition(lambda: one.ended and two.ended and three.ended)
        ending.cancel()

    assert calls == 1


def test_a_feed_that_ends_from_the_row_keeps_a_snapshot_of_any_size() -> None:
    feed = Feed(log_keys(PREFIX, "x"), QUEUED)
    feed.add([make_event(2, EventType.TEXT_DELTA, {"part": 0, "text": "x" * (KEPT_BYTES - 100)})])
    snapshot = make_event(8, EventType.SNAPSHOT, {"content": "x" * (KEPT_BYTES + 1)})
    last = End(snapshot, make_event(9, EventType.FAILED, {"message": "y" * 200}))

    feed.end(last)

    assert not feed.is_behind(2)
    batch = feed.after(2)
    assert batch is not None
    assert batch.events == [last.snapshot]
    batch = feed.after(8)
    assert batch is not None
    assert batch.events == [last.terminal]


async def test_ends_are_read_a_few_at_a_time(redis: ArqRedis) -> None:
    asked: list[int] = []

    async def ends(ids: Sequence[str]) -> dict[str, End]:
        asked.append(len(ids))
        return {}

    feeds = Feeds(redis, Tail(""), ends, key_prefix=PREFIX, retention_s=60)
    count = 3 * ENDS_AT_ONCE - 1
    feeds._maybe_ended |= {str(n) for n in range(count)}
    feeds._end_due.set()
    ending = asyncio.create_task(feeds.end())
    await condition(lambda: sum(asked) == count)
    ending.cancel()

    assert max(asked) == ENDS_AT_ONCE


async def test_an_undecodable_message_does_not_end_the_subscription(valkey: str) -> None:
    tail, received, live = Tail(valkey), [], asyncio.Event()

    def receive(data: bytes) -> None:
        received.append(int(data))

    tail.listen(b"numbers", Listener(live.set, receive))
    running = asyncio.create_task(tail.run())
    await live.wait()

    with Redis.from_url(valkey) as other:
        for message in ("1", "x", "2"):
            other.publish("numbers", message)
    await condition(lambda: received[-1:] == [2])
    running.cancel()

    assert received == [1, 2]


async def test_a_connection_that_is_lost_before_its_first_command_is_closed_and_replaced(
    valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tail, live, links, connect = Tail(valkey), asyncio.Event(), [], Link.connect

    async def lose_the_first(url: str) -> Link:
        links.append(await connect(url))
        if len(links) == 1:
            await links[0].close()
        return links[-1]

    monkeypatch.setattr(Link, "connect", lose_the_first)
    tail.listen(b"numbers", Listener(live.set, lambda _data: None))
    running = asyncio.create_task(tail.run())
    waiting = asyncio.create_task(live.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED, timeout=30)

    assert not running.done()
    assert waiting.done()
    running.cancel()


async def test_a_log_that_redis_rejects_does_not_prevent_writing_others(
    redis: ArqRedis, valkey: str
) -> None:
    await redis.set(log_keys(PREFIX, "bad").state, "x")
    writing, losses = Writing(valkey, PREFIX), LOG_LOSSES._value.get()
    try:
        bad, good = writing.add("bad"), writing.add("good")
        assert await good.opened is Found.NOTHING_YET
        for n in range(20):
            good.delta(EventType.TEXT_DELTA, f"{n} ")
            await good.flushed()
        assert not bad.opened.done()
        assert writing.writer._failures[bad] > 0
        assert LOG_LOSSES._value.get() == losses

        await redis.delete(log_keys(PREFIX, "bad").state)
        assert await bad.opened is Found.NOTHING_YET
    finally:
        writing.end()


@pytest.mark.parametrize(
    "entry",
    [
        b"nonsense",
        b"2 text_delta {bad",
        b'2 text_delta {"text":"x"}',
        b'2 text_delta {"part":5,"text":"x"}',
        b'2 tool_call {"part":0}',
        b'2 snapshot {"content":[0]}',
    ],
)
async def test_a_damaged_entry_makes_its_owner_start_over_and_no_other_wait(
    entry: bytes, redis: ArqRedis, valkey: str
) -> None:
    await write(redis, "damaged", {2: entry})
    run_id = (await redis.info("server"))["run_id"]
    state = {"epoch": 1, "seq": 2, "whole": run_id}
    await redis.hset(log_keys(PREFIX, "damaged").state, mapping=state)
    async with running_writer(valkey, PREFIX) as writing:
        assert await writing.add("damaged").opened is Found.LOST
        assert await writing.add("good").opened is Found.NOTHING_YET


async def test_a_text_that_no_event_can_be_made_of_ends_its_own_attempt(
    redis: ArqRedis, valkey: str
) -> None:
    async with running_writer(valkey, PREFIX) as writing:
        bad, good = writing.add("bad"), writing.add("good")
        bad.delta(EventType.TEXT_DELTA, "\ud800")
        good.delta(EventType.TEXT_DELTA, "x")
        await bad.superseded
        await good.opened
        await good.flushed()


async def test_a_step_of_redis_s_clock_is_noticed(redis: ArqRedis, valkey: str) -> None:
    async with running_writer(valkey, PREFIX) as writing:
        await writing.add("before").opened
        writing.writer._clock_offset_s -= 60
        writing.confirmed.clear()
        after = [writing.add(f"after {n}") for n in range(3)]
        await asyncio.gather(*[owned.opened for owned in after])

    # What was claimed before the clock was read again has no known time on it: SQL is asked, once.
    assert sorted(writing.confirmed) == ["after 0", "after 1", "after 2"]
