"""A stream is never silent for long, whatever wakes it, and a reader that is behind does not wait."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from arq.connections import ArqRedis
from redis.asyncio.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError

from server.changes.cursor import parse_cursor
from server.changes.follower import Changes, Opened
from server.changes.watches import Announcer, Watches
from server.history.conversations import delete_conversation
from server.history.database import Database, open_database
from server.history.feed import Scope
from server.history.schema import migrate
from server.history.tables import Account, Generation
from server.ids import Prefix, new_id
from server.lifecycle.row_events import ends_in, queued_event
from server.stream import heartbeat
from server.stream.events import Event, EventType, make_event
from server.stream.feed import Batch, Feed, Feeds, follow
from server.stream.log import log_keys
from server.stream.tail import Tail
from server.verbs.ask import Send
from server.verbs.inputs import SendMessage
from tests.test_search import Conversations, key_of

pytestmark = pytest.mark.quick

PREFIX = "heartbeats:"
ME = new_id(Prefix.ACCOUNT)
SOON_S = 0.1


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    url = f"sqlite:///{tmp_path}/test.db"
    await migrate(url)
    async with open_database(url) as database:
        await database.write(lambda session: session.add_all([Account(id=ME), key_of(ME)]))
        yield database


@pytest.fixture
def feeds(redis: ArqRedis, database: Database) -> Feeds:
    return Feeds(redis, Tail(""), ends_in(database), key_prefix=PREFIX, retention_s=60)


@pytest.fixture
def changes(feeds: Feeds, redis: ArqRedis, database: Database) -> Changes:
    return Changes(feeds, Watches(database, Tail(""), PREFIX), database, redis, PREFIX)


async def ask(database: Database) -> Generation:
    return await Conversations(database, ME).request(Send(SendMessage(text="hi")))


@contextmanager
def waking(feed: Feed) -> Iterator[None]:
    """Wakes the readers of a feed all the time."""

    async def wake() -> None:
        while True:
            feed.wake()
            await asyncio.sleep(0)

    task = asyncio.create_task(wake())
    try:
        yield
    finally:
        task.cancel()


async def first(stream: AsyncGenerator[Any, None]) -> Any:
    async with asyncio.timeout(30):
        return await anext(stream)


def events(last_seq: int, size: int) -> list[Event]:
    return [
        make_event(seq, EventType.TEXT_DELTA, {"part": 0, "text": "x" * size})
        for seq in range(2, last_seq + 1)
    ]


async def write(redis: ArqRedis, id: str, entries: list[Event]) -> None:
    for event in entries:
        await redis.xadd(log_keys(PREFIX, id).events, {"e": event.encoded()}, id=f"{event.seq}-0")


async def opened(changes: Changes, generation: Generation) -> tuple[AsyncGenerator[Any, None], str]:
    """The stream of a new reader of the conversation after its first event, and its cursor."""
    stream = (await changes.open(Scope(ME, generation.conversation_id), None)).follow()
    [event] = await first(stream)
    assert isinstance(event.what, Opened)
    return stream, event.cursor


async def test_a_page_ends_when_its_conversation_is_deleted_among_too_many_changes(
    changes: Changes, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = await ask(database)
    stream, _cursor = await opened(changes, generation)
    monkeypatch.setattr("server.history.feed.CONVERSATIONS_MAX", 0)

    async with aclosing(stream):
        await database.write(delete_conversation, generation.conversation_id, ME)
        await changes.watches._check([ME])
        with pytest.raises(StopAsyncIteration):
            await first(stream)


async def test_the_highest_change_number_is_published(redis: ArqRedis) -> None:
    announcer = Announcer(redis, PREFIX)

    announcer.publish({ME: 5})
    announcer.publish({ME: 3})  # an earlier commit, reported later

    assert announcer._changed == {ME: 5}


async def test_wake_ups_do_not_keep_a_page_from_its_heartbeat(
    changes: Changes, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", SOON_S)
    generation = await ask(database)
    stream, _cursor = await opened(changes, generation)
    async with aclosing(stream):
        with waking(changes.feeds._feeds[generation.id]):
            sent = [await first(stream) for _ in range(3)]

    assert sent == [None] * 3


@pytest.mark.slow
async def test_wake_ups_do_not_keep_a_reader_from_its_heartbeat(
    feeds: Feeds, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", SOON_S)
    generation = await ask(database)
    async with aclosing(follow(feeds, generation.id, queued_event(generation), 1_000)) as stream:
        assert await first(stream) is None  # an answer that is not that far yet

        with waking(feeds._feeds[generation.id]):
            assert await first(stream) is None


async def test_a_feed_that_catches_up_to_a_reader_sends_it_no_heartbeats(
    feeds: Feeds, database: Database
) -> None:
    generation = await ask(database)
    queued = queued_event(generation)
    entries = events(10_000, size=1)
    async with aclosing(follow(feeds, generation.id, queued, 9_999)) as stream:
        reading = asyncio.create_task(first(stream))
        await asyncio.sleep(0)
        feed = feeds._feeds[generation.id]
        for start in range(0, len(entries), 500):
            feed.add(entries[start : start + 500])
            await asyncio.sleep(0)

        batch = await reading

    assert isinstance(batch, Batch)
    assert [event.seq for event in batch.events] == [10_000]


@contextmanager
def redis_away(monkeypatch: pytest.MonkeyPatch, calls: int | None = None) -> Iterator[None]:
    """Lets pipelines fail, the first `calls` of them or all."""
    execute, failed = Pipeline.execute, 0

    async def fail(pipe: Pipeline, **options: Any) -> Any:
        nonlocal failed
        failed += 1
        if calls is None or failed <= calls:
            raise RedisConnectionError("away")
        return await execute(pipe, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "execute", fail)
        yield


@pytest.mark.slow
async def test_a_reader_that_is_behind_gets_heartbeats_while_redis_is_away(
    feeds: Feeds, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", SOON_S)
    generation = await ask(database)
    queued = queued_event(generation)
    with feeds.feed(generation.id, queued) as feed, redis_away(monkeypatch):
        feed.add(events(200, size=10_000))
        assert feed.is_behind(2)
        async with aclosing(follow(feeds, generation.id, queued, 2)) as stream:
            assert [await first(stream) for _ in range(2)] == [None, None]


async def test_a_page_that_is_behind_reads_on_as_soon_as_redis_is_back(
    changes: Changes, redis: ArqRedis, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = await ask(database)
    entries = events(200, size=10_000)
    stream, cursor = await opened(changes, generation)
    await stream.aclose()
    await write(redis, generation.id, entries)
    with changes.feeds.feed(generation.id, queued_event(generation)) as feed:
        feed.add(entries)
        scope = Scope(ME, generation.conversation_id)
        follower = await changes.open(scope, parse_cursor(cursor))
        async with aclosing(follower.follow()) as resumed:
            with redis_away(monkeypatch, calls=1):
                batch = await first(resumed)

    assert [each.what.event.seq for each in batch] == [2, 3, 4, 5, 6, 7]


async def test_a_page_gets_heartbeats_while_the_end_of_an_answer_cannot_be_read(
    changes: Changes, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", SOON_S)
    generation = await ask(database)
    stream, _cursor = await opened(changes, generation)
    async with aclosing(stream):
        await Conversations(database, ME).answer(generation, "done")
        with redis_away(monkeypatch):
            await changes.watches._check([ME])
            sent: list[Any] = []
            while sent[-2:] != [None, None]:  # after what precedes the end of the answer
                sent.append(await first(stream))
