"""The Lua scripts of the token log on a real Valkey: fencing, idempotence and closing."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from server.lifecycle.queue import open_redis
from server.stream.events import Event
from server.stream.link import Link
from server.stream.log import APPEND, CLOSE, OPEN, LogKeys, close_log, log_keys, read_logs

pytestmark = pytest.mark.quick

TTL_MS = 60_000


class Log:
    """One log with the calls of its writers."""

    def __init__(self, link: Link, keys: LogKeys) -> None:
        self.link, self.keys = link, keys

    async def call(self, *command: Any) -> Any:
        [reply] = await self.link.execute([command])
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def open(self, epoch: int, *, first: str = "first", late_s: float = 5) -> Any:
        deadline = int((time.time() + late_s) * 1e6)
        return await self.call(
            "EVAL",
            OPEN.source,
            2,
            self.keys.state,
            self.keys.events,
            epoch,
            deadline,
            TTL_MS,
            first,
            "entries",
        )

    async def append(self, epoch: int, *events: Event, whole: str = "") -> int:
        numbered = [argument for event in events for argument in (event.seq, event.encoded())]
        head = (
            "EVAL",
            APPEND.source,
            2,
            self.keys.state,
            self.keys.events,
            epoch,
            self.keys.channel,
            TTL_MS,
            whole,
        )
        return int(await self.call(*head, *numbered))

    async def close(self, terminal: Event) -> int:
        head = (
            "EVAL",
            CLOSE.source,
            2,
            self.keys.state,
            self.keys.events,
            terminal.seq,
            terminal.encoded(),
            self.keys.channel,
            TTL_MS,
        )
        return int(await self.call(*head))

    async def seqs(self) -> list[int]:
        entries = await self.call("XRANGE", self.keys.events, "-", "+")
        return [int(id.split(b"-")[0]) for id, _fields in entries]


@pytest.fixture
async def log(valkey: str, request: pytest.FixtureRequest) -> AsyncIterator[Log]:
    link = await Link.connect(valkey)
    yield Log(link, log_keys("test:", request.node.name))
    await link.close()


def delta(seq: int, text: str = "x") -> Event:
    return Event(seq, "text_delta", b'{"part":0,"text":"%s"}' % text.encode())


DONE = b'{"finish_reason":"stop","usage":null}'


async def test_nothing_is_appended_to_a_log_that_was_not_opened(log: Log) -> None:
    assert await log.append(1, delta(2)) == 0
    assert await log.call("EXISTS", log.keys.state, log.keys.events) == 0


async def test_the_first_attempt_opens_a_complete_log(log: Log) -> None:
    assert await log.open(1) == [b"open", 1, 1, []]


async def test_a_log_created_by_a_later_attempt_is_incomplete_until_declared_complete(
    log: Log,
) -> None:
    assert (await log.open(2, first=""))[1] == 0

    assert await log.append(2, Event(1_000_001, "restarted", b"{}"), whole="whole") == 1

    assert (await log.open(3, first=""))[1:3] == [1, 1_000_001]


async def test_a_stale_attempt_can_neither_open_nor_append(log: Log) -> None:
    await log.open(1)
    await log.append(1, delta(2))
    await log.open(2)

    assert await log.open(1) == [b"stale"]
    assert await log.append(1, delta(3)) == -1
    assert await log.seqs() == [2]


async def test_opening_after_the_deadline_is_refused(log: Log) -> None:
    assert await log.open(1, late_s=-0.001) == [b"late"]
    assert await log.call("EXISTS", log.keys.state) == 0


async def test_events_sent_again_are_written_once(log: Log) -> None:
    await log.open(1)
    await log.append(1, delta(2), delta(3))

    assert await log.append(1, delta(2), delta(3), delta(4)) == 1

    assert await log.seqs() == [2, 3, 4]


async def test_events_after_a_gap_are_refused(log: Log) -> None:
    await log.open(1)

    assert await log.append(1, delta(3)) == 0
    assert await log.seqs() == []


async def test_only_a_restart_may_skip_sequence_numbers(log: Log) -> None:
    await log.open(1)
    await log.append(1, delta(2))

    assert await log.append(1, delta(9)) == 0
    assert await log.append(1, Event(1_000_001, "restarted", b"{}"), delta(1_000_002)) == 1
    assert await log.seqs() == [2, 1_000_001, 1_000_002]


async def test_a_partly_lost_log_starts_over_and_is_incomplete(log: Log) -> None:
    await log.open(1)
    await log.append(1, delta(2))
    await log.call("DEL", log.keys.events)

    assert await log.open(1, first="") == [b"open", 0, 1, []]


async def test_the_terminal_event_is_written_once_and_nothing_after_it(log: Log) -> None:
    await log.open(1)
    await log.append(1, delta(2))

    assert await log.close(Event(3, "completed", DONE)) == 1
    assert await log.close(Event(3, "completed", DONE)) == 1
    assert await log.append(1, delta(4)) == -1
    assert await log.open(2) == [b"closed"]
    assert await log.seqs() == [2, 3]


async def test_a_log_with_a_gap_before_its_end_is_deleted(log: Log) -> None:
    await log.open(1)
    await log.append(1, delta(2))

    assert await log.close(Event(9, "completed", DONE)) == 0
    assert await log.call("EXISTS", log.keys.state, log.keys.events) == 0


async def test_every_log_expires(log: Log) -> None:
    await log.open(1)
    await log.append(1, delta(2))

    for key in (log.keys.state, log.keys.events):
        assert 0 < await log.call("PTTL", key) <= TTL_MS


async def test_appended_events_are_published_with_the_same_bytes(valkey: str, log: Log) -> None:
    listener = await Link.connect(valkey)
    listener.send([("SUBSCRIBE", log.keys.channel)])
    await listener.receive()
    await log.open(1)

    await log.append(1, delta(2), delta(3))
    await log.close(Event(4, "completed", DONE))

    messages: list[Any] = []
    async with asyncio.timeout(5):
        while len(messages) < 2:
            messages += await listener.receive()
    await listener.close()
    assert [message[2] for message in messages] == [
        delta(2).encoded() + b"\n" + delta(3).encoded(),
        Event(4, "completed", DONE).encoded(),
    ]


async def test_logs_are_read_from_a_cursor(valkey: str, log: Log) -> None:
    redis = open_redis(valkey)
    await log.open(1)
    await log.append(1, *(delta(seq) for seq in range(2, 12)))

    [all_of_it, from_five, none] = await read_logs(
        redis, [(log.keys, 0), (log.keys, 5), (log_keys("test:", "none"), 0)], 100
    )

    assert [event.seq for event in all_of_it] == list(range(2, 12))
    assert from_five == all_of_it[4:]
    assert none == []
    assert not await close_log(redis, log_keys("test:", "none"), Event(2, "cancelled", b"{}"), 60)
    await redis.aclose(close_connection_pool=True)
