"""Tokens that follow each other quickly share an event; others are written at once."""

import asyncio

import pytest
from arq.connections import ArqRedis

from server.generate import writer
from server.stream.events import FIRST_SEQ, Event, EventType
from server.stream.log import log_keys, read_logs
from tests.writing import running_writer

pytestmark = pytest.mark.quick

PREFIX = "gathering:"
ROUND_TRIPS = 20
"""Far more than the writer needs for what is not held back."""


async def events_of(redis: ArqRedis, id: str) -> list[Event]:
    """What is in the log after the writer had time to write it."""
    for _ in range(ROUND_TRIPS):
        await redis.ping()
        await asyncio.sleep(0)
    [events] = await read_logs(redis, [(log_keys(PREFIX, id), FIRST_SEQ)], 100)
    return events


def types_of(events: list[Event]) -> list[str]:
    return [event.type for event in events]


async def test_tokens_after_the_first_are_gathered_until_something_else_is_written(
    redis: ArqRedis, valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "GATHER_S", 3600.0)
    async with running_writer(valkey, PREFIX) as writing:
        owned = writing.add("one")
        await owned.opened
        owned.event(EventType.STARTED, {"attempt": 1})
        owned.delta(EventType.TEXT_DELTA, "first")
        while owned.acked < 2:
            await asyncio.sleep(0)

        owned.delta(EventType.TEXT_DELTA, " second")
        assert types_of(await events_of(redis, "one")) == ["started", "text_delta"]
        owned.delta(EventType.TEXT_DELTA, " third")
        assert types_of(await events_of(redis, "one")) == ["started", "text_delta"]

        owned.event(EventType.TOOL_CALL, {"call_id": "1", "name": "clock", "arguments": "{}"})
        while owned.acked < 4:
            await asyncio.sleep(0)
        events = await events_of(redis, "one")
        assert types_of(events) == ["started", "text_delta", "text_delta", "tool_call"]
        assert b'" second third"' in events[2].data

        owned.delta(EventType.TEXT_DELTA, "at once after a tool call")
        while owned.acked < 5:
            await asyncio.sleep(0)


async def test_a_batch_has_what_other_answers_have_gathered(
    redis: ArqRedis, valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "GATHER_S", 3600.0)
    async with running_writer(valkey, PREFIX) as writing:
        fast, other = writing.add("fast"), writing.add("other")
        await fast.opened
        await other.opened
        fast.delta(EventType.TEXT_DELTA, "first")
        while fast.acked < 1:
            await asyncio.sleep(0)
        fast.delta(EventType.TEXT_DELTA, " second")
        assert len(await events_of(redis, "fast")) == 1

        other.delta(EventType.TEXT_DELTA, "first of another answer")
        while other.acked < 1:
            await asyncio.sleep(0)
        assert len(await events_of(redis, "fast")) == 2


async def test_what_is_held_back_is_written_without_another_token(
    redis: ArqRedis, valkey: str
) -> None:
    async with running_writer(valkey, PREFIX) as writing:
        owned = writing.add("last")
        await owned.opened
        for n in range(1, 20):
            owned.delta(EventType.TEXT_DELTA, f"{n} ")
            while owned._pending:
                await asyncio.sleep(0.001)
        await owned.flushed()


async def test_the_end_of_an_answer_waits_for_nothing(
    redis: ArqRedis, valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "GATHER_S", 3600.0)
    async with running_writer(valkey, PREFIX) as writing:
        owned = writing.add("ending")
        await owned.opened
        owned.delta(EventType.TEXT_DELTA, "first")
        while owned.acked < 1:
            await asyncio.sleep(0)
        owned.delta(EventType.TEXT_DELTA, " last")
        await owned.flushed()
        assert len(await events_of(redis, "ending")) == 2
