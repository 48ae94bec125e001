"""Settling answers that ended before they were written to their end: what is kept, and what one log costs."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from arq.connections import ArqRedis
from redis.asyncio.client import Pipeline
from redis.exceptions import TimeoutError as RedisTimeoutError
from sqlmodel import Session

from server.generate.answering import Answering, Stop
from server.generate.claim import Claimed
from server.generate.owned_log import OwnedLog
from server.generate.writer import LogWriter
from server.history.accounts import new_account
from server.history.claims import Fence, OpenRow, claim, open_rows
from server.history.database import Database, open_database
from server.history.generations import cancel_active, settled_without_content
from server.history.schema import migrate
from server.history.tables import GENERATIONS, Generation, Status
from server.history.turns import NewGeneration, add_conversation, add_generation, add_question
from server.history.turns import begin_turn as begin
from server.history.workers import release_dead
from server.lifecycle.row_events import terminal_event
from server.lifecycle.settling import SETTLED_AT_ONCE, Settler, Staleness
from server.lifecycle.written import written_so_far
from server.settings import Settings
from server.stream.events import EventType, make_event
from server.stream.log import close_logs, log_keys
from tests.installation import in_a_thread
from tests.steady_heartbeat import SteadyHeartbeat
from tests.waiting import condition

pytestmark = pytest.mark.quick

PREFIX = "settling:"
TEXT = "two hundred tokens that every reader has seen"
DAMAGED = {
    "no JSON": b"3 text_delta {bad",
    "no object": b"3 text_delta [1]",
    "no part": b'3 text_delta {"text":"x"}',
    "a part too many": b'3 text_delta {"part":5,"text":"x"}',
    "a part below zero": b'3 text_delta {"part":-1,"text":"x"}',
    "a part of another type": b'3 reasoning_delta {"part":0,"text":"x"}',
    "a text that is none": b'3 text_delta {"part":0,"text":null}',
    "a call without arguments": b'3 tool_call {"part":1,"call_id":"a","name":"b"}',
    "a content that is none": b'3 snapshot {"content":[{"type":"text"}]}',
}


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the schema and nothing else; to be copied, which is faster than to migrate."""
    path = tmp_path_factory.mktemp("empty") / "tidemark.db"
    in_a_thread(lambda: asyncio.run(migrate(f"sqlite:///{path}")))
    return path


@pytest.fixture
async def database(empty: Path, tmp_path: Path) -> AsyncIterator[Database]:
    copy = shutil.copy(empty, tmp_path)
    async with open_database(f"sqlite:///{copy}") as database:
        yield database


@pytest.fixture
def settler(database: Database, redis: ArqRedis) -> Settler:
    return Settler("web", database, redis, key_prefix=PREFIX, ttl_s=60, retention_s=60)


def ask(session: Session, count: int) -> list[str]:
    """Queue the answers to as many questions."""
    turn = begin(session, new_account(session).id)
    parts = [{"type": "text", "text": "hi"}]
    ids = []
    for _ in range(count):
        target = add_conversation(session, turn, parts, model="demo", system_prompt=None)
        question_id = add_question(
            session, turn, target, None, position=0, parts=parts, metadata={}
        )
        new = NewGeneration(target, question_id, "demo", {}, {})
        ids.append(add_generation(session, turn, new).id)
    return ids


async def leave(database: Database, redis: ArqRedis, id: str, *entries: bytes) -> None:
    """A first attempt whose worker died: its row has no owner, and its log holds these entries."""
    await database.write(claim, id, "dead")
    await database.write(release_dead, "dead")
    keys = log_keys(PREFIX, id)
    for seq, entry in enumerate(entries, start=2):
        await redis.xadd(keys.events, {"e": entry}, id=f"{seq}-0")
    run_id = (await redis.info("server"))["run_id"]
    state = {"epoch": 1, "seq": len(entries) + 1, "whole": run_id}
    await redis.hset(keys.state, mapping=state)


async def request_cancel(database: Database, ids: list[str]) -> None:
    await database.write(lambda session: cancel_active(session, GENERATIONS.c.id.in_(ids)))


async def rows(database: Database, ids: list[str]) -> list[Generation]:
    return await database.read(lambda session: [session.get_one(Generation, id) for id in ids])


def started() -> bytes:
    return make_event(2, EventType.STARTED, {"attempt": 1}).encoded()


def text_event(seq: int) -> bytes:
    return make_event(seq, EventType.TEXT_DELTA, {"part": 0, "text": TEXT}).encoded()


async def test_a_damaged_log_costs_a_cancelled_answer_its_text_and_the_others_nothing(
    database: Database, redis: ArqRedis, settler: Settler
) -> None:
    ids = await database.write(ask, len(DAMAGED) + 3)
    for id, entry in zip(ids, DAMAGED.values(), strict=False):
        await leave(database, redis, id, text_event(2), entry)
    *damaged, no_hash, good, queued = ids
    await leave(database, redis, no_hash)
    await redis.set(log_keys(PREFIX, no_hash).state, "x")
    await leave(database, redis, good, started(), text_event(3))
    await request_cancel(database, ids)

    await settler.sweep_cancelled(Staleness())

    settled = {row.id: row for row in await rows(database, ids)}
    assert {row.status for row in settled.values()} == {Status.CANCELLED}
    assert all(settled[id].parts == [] for id in [*damaged, no_hash, queued])
    assert settled[good].parts == [{"type": "text", "text": TEXT}]
    assert all(settled[id].sealed == (id != no_hash) for id in ids)


@pytest.mark.parametrize("damage", DAMAGED)
async def test_a_snapshot_ends_before_a_damaged_event_until_the_answer_starts_over(
    damage: str, database: Database, redis: ArqRedis
) -> None:
    [id] = await database.write(ask, 1)
    await leave(database, redis, id, text_event(2), DAMAGED[damage], text_event(4))
    generations = await rows(database, [id])

    [before] = await written_so_far(redis, PREFIX, generations)
    keys = log_keys(PREFIX, id)
    for seq, entry in enumerate(
        (b"restarted {}", b'text_delta {"part":0,"text":"new"}'), 1_000_001
    ):
        await redis.xadd(keys.events, {"e": b"%d %s" % (seq, entry)}, id=f"{seq}-0")
    [after] = await written_so_far(redis, PREFIX, generations)

    assert before == ([{"type": "text", "text": TEXT}], 2)
    assert after == ([{"type": "text", "text": "new"}], 1_000_002)


async def test_answers_cancelled_while_redis_hangs_are_settled_before_their_logs_are_ended(
    database: Database, redis: ArqRedis, settler: Settler, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await database.write(ask, SETTLED_AT_ONCE + 1)
    await request_cancel(database, ids)
    settled_at_calls: list[int] = []

    async def hang(_pipe: Pipeline, **_: Any) -> Any:
        settled_at_calls.append(sum(row.status.terminal for row in await rows(database, ids)))
        raise RedisTimeoutError

    monkeypatch.setattr(Pipeline, "execute", hang)
    await settler.sweep_cancelled(Staleness())

    assert settled_at_calls == [len(ids)]


async def test_those_that_need_no_redis_are_settled_while_it_hangs(
    database: Database, redis: ArqRedis, settler: Settler, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await database.write(ask, 3 * SETTLED_AT_ONCE)
    opened, queued = ids[: 2 * SETTLED_AT_ONCE], ids[2 * SETTLED_AT_ONCE :]
    for id in opened:
        await leave(database, redis, id, started(), text_event(3))
    await request_cancel(database, ids)
    calls = 0

    async def hang(*_: Any, **__: Any) -> Any:
        nonlocal calls
        calls += 1
        raise RedisTimeoutError

    monkeypatch.setattr(ArqRedis, "execute_command", hang)
    monkeypatch.setattr(Pipeline, "execute", hang)
    await settler.sweep_cancelled(Staleness())

    assert {row.status for row in await rows(database, queued)} == {Status.CANCELLED}
    left = await rows(database, opened)
    assert {(row.status, row.owner) for row in left} == {(Status.RUNNING, None)}
    assert calls == SETTLED_AT_ONCE  # at the same time; the rest waits for the next sweep


async def test_a_log_that_cannot_be_ended_is_tried_again_ever_more_rarely(
    database: Database, redis: ArqRedis, settler: Settler, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused, good = ids = await database.write(ask, 2)
    await request_cancel(database, ids)
    await redis.set(log_keys(PREFIX, refused).state, "x")
    await settler.sweep_cancelled(Staleness())
    clock, tried_at_s = Clock(), []

    async def close(redis: ArqRedis, closings: list[Any], retention_s: float) -> list[Any]:
        if closings:
            tried_at_s.append(clock.at_s)
        return list(await close_logs(redis, closings, retention_s))

    monkeypatch.setattr("server.lifecycle.settling.close_logs", close)
    monkeypatch.setattr("server.lifecycle.settling.monotonic", clock.read)
    for _ in range(31):
        await settler.seal_left([row.id for row in await database.read(unsealed)])
        clock.at_s += 1

    assert tried_at_s == [0, 2, 6, 14, 30]
    await redis.delete(log_keys(PREFIX, refused).state)
    clock.at_s = 62
    await settler.seal_left([refused])
    assert all(row.sealed for row in await rows(database, [refused, good]))


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.at_s = 0

    def read(self) -> float:
        return float(self.at_s)


def unsealed(session: Session) -> list[OpenRow]:
    return [row for row in open_rows(session) if row.status.terminal]


async def test_a_terminal_event_is_made_without_the_content(
    database: Database, settler: Settler
) -> None:
    ids = await database.write(ask, 1)
    await request_cancel(database, ids)
    await settler.sweep_cancelled(Staleness())

    [without] = await database.read(settled_without_content, ids)
    [whole] = await rows(database, ids)

    assert "parts" not in without.__dict__
    assert terminal_event(without) == terminal_event(whole)


class Writing:
    """A worker's writer, which has not begun to write."""

    def __init__(self, url: str) -> None:
        self.writer = LogWriter(url, SteadyHeartbeat(), self._confirm, retention_s=60)
        self._tasks: list[asyncio.Task[None]] = []

    async def _confirm(self, fences: Any) -> set[Fence]:
        return set(fences)

    def begin(self) -> None:
        self._tasks = [asyncio.create_task(run()) for run in (self.writer.run, self.writer.confirm)]

    def end(self) -> None:
        for task in self._tasks:
            task.cancel()


@pytest.fixture
def writing(valkey: str) -> Iterator[Writing]:
    writing = Writing(valkey)
    yield writing
    writing.end()


async def attempt(database: Database, writing: Writing, id: str) -> Answering:
    claimed = await database.write(claim, id, "wrk")
    assert claimed is not None
    owned = OwnedLog(
        Fence(id, "wrk", claimed.attempt),
        log_keys(PREFIX, id),
        ttl_s=60,
        checkpoint_seq=claimed.seq,
        handed_over=False,
        dirty=writing.writer.dirty,
    )
    writing.writer.add(owned, 0)
    return Answering(
        Claimed(claimed, None, "", []),
        owned,
        None,
        database=database,
        writer=writing.writer,
        limits=Settings().generation,
    )


async def test_an_answer_cancelled_before_its_log_was_opened_keeps_what_was_written(
    database: Database, redis: ArqRedis, writing: Writing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.generate.answering.OPEN_TIMEOUT_S", 60)
    [id] = await database.write(ask, 1)
    await leave(database, redis, id, started(), text_event(3))
    answering = await attempt(database, writing, id)

    answering.stop(Stop.CANCELLED)
    running = asyncio.create_task(answering.run())
    writing.begin()
    await running
    await condition(lambda: writing.writer.sealed)

    [row] = await rows(database, [id])
    assert (row.status, row.seq) == (Status.CANCELLED, 4)
    assert row.parts == [{"type": "text", "text": TEXT}]
    assert row.usage is not None
    assert await redis.xlen(log_keys(PREFIX, id).events) == 3


async def test_an_answer_cancelled_before_its_log_was_opened_ends_also_without_redis(
    database: Database, redis: ArqRedis, writing: Writing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.generate.answering.OPEN_TIMEOUT_S", 0)
    [id] = await database.write(ask, 1)
    await leave(database, redis, id, started(), text_event(3))
    answering = await attempt(database, writing, id)

    answering.stop(Stop.CANCELLED)
    await answering.run()

    [row] = await rows(database, [id])
    assert (row.status, row.parts, row.seq) == (Status.CANCELLED, [], 1_000_001)
