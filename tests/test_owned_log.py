"""The memory of an answer is bounded, however small the pieces that a model sends."""

import asyncio

from server.generate.owned_log import EVENTS_UNJOINED, JOINED_MIN_CHARS, OwnedLog
from server.history.claims import Fence
from server.stream.events import FIRST_SEQ, EventType
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


async def test_single_characters_are_eventually_joined_into_larger_events() -> None:
    owned = new_log()

    for _ in range(ANSWER_CHARS):
        owned.delta(EventType.TEXT_DELTA, "x")
        owned.freeze()
        owned.acknowledge(len(owned.events))

    joined = (ANSWER_CHARS - EVENTS_UNJOINED) // JOINED_MIN_CHARS
    assert len(owned.events) <= EVENTS_UNJOINED + joined + 1


async def test_flushing_does_not_wait_for_more_text() -> None:
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
