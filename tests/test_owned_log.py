"""What an answer holds is bounded, however small the pieces are in which a model sends it."""

import asyncio
import itertools

import pytest

from server.generate.owned_log import (
    EVENTS_MAX,
    EVENTS_UNJOINED,
    JOINED_MIN_CHARS,
    PARTS_MAX,
    OwnedLog,
)
from server.history.claims import Fence
from server.stream.events import EPOCH_SEQS, FIRST_SEQ, EventType
from server.stream.log import log_keys

ANSWER_CHARS = 4 * EVENTS_UNJOINED


def new_log() -> OwnedLog:
    owned = OwnedLog(
        Fence("gen", "wrk", 1),
        log_keys("", "gen"),
        ttl_s=60,
        checkpoint_seq=FIRST_SEQ,
        handed_over=False,
        dirty=lambda _log: None,
    )
    owned.adopt(FIRST_SEQ, [], whole=True)
    return owned


async def test_single_characters_do_not_make_an_event_each_for_ever() -> None:
    owned = new_log()

    for _ in range(ANSWER_CHARS):
        owned.delta(EventType.TEXT_DELTA, "x")
        owned.freeze()
        owned.acknowledge(len(owned.events))

    joined = (ANSWER_CHARS - EVENTS_UNJOINED) // JOINED_MIN_CHARS
    assert len(owned.events) <= EVENTS_UNJOINED + joined + 1


async def test_the_end_of_an_answer_does_not_wait_for_more() -> None:
    owned = new_log()
    for _ in range(EVENTS_UNJOINED + 5):
        owned.delta(EventType.TEXT_DELTA, "x")
        owned.freeze()
        owned.acknowledge(len(owned.events))

    flushing = asyncio.create_task(owned.flushed())
    await asyncio.sleep(0)
    owned.freeze()
    owned.acknowledge(len(owned.events))
    await flushing

    [part], _seq = owned.written()
    assert part["text"] == "x" * (EVENTS_UNJOINED + 5)


@pytest.mark.parametrize("acknowledging", [True, False])
async def test_alternating_types_do_not_make_a_part_of_every_character_for_ever(
    acknowledging: bool,
) -> None:
    owned = new_log()
    types = itertools.cycle((EventType.TEXT_DELTA, EventType.REASONING_DELTA))

    chars = 0
    while not owned.full and chars <= PARTS_MAX:
        owned.delta(next(types), "x")
        chars += 1
        if acknowledging:
            owned.freeze()
            owned.acknowledge(len(owned.events))
    owned.freeze()

    assert len(owned.written()[0]) == chars == PARTS_MAX


async def test_two_attempts_never_share_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.generate.owned_log.EVENTS_MAX", 10)
    owned = new_log()

    while not owned.full and owned.seq < EPOCH_SEQS:
        owned.event(EventType.TOOL_CALL, {"call_id": "a", "name": "b", "arguments": "{}"})
        owned.freeze()

    assert len(owned.events) == 10
    assert EVENTS_MAX < EPOCH_SEQS
