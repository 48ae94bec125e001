"""What an encoder made of a batch is shared while both live, and kept no longer."""

import gc
from collections.abc import Iterator
from typing import Any
from weakref import WeakSet

import pytest

from server.graph.encoding import KEPT_BATCHES, Encoder, EventBatch
from server.stream.events import EventType, make_event
from server.stream.feed import Batch

pytestmark = pytest.mark.quick

EVENT = make_event(2, EventType.TEXT_DELTA, {"part": 0, "text": "tide"})


class Results:
    """What a transport sends; counted while it is alive."""

    alive: "WeakSet[Results]" = WeakSet()

    def __init__(self, _payloads: list[bytes]) -> None:
        self.alive.add(self)


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    Results.alive.clear()
    gc.disable()
    yield
    gc.enable()


def told(batch: Batch) -> EventBatch[Any]:
    return EventBatch(batch.events, lambda _event: None, batch)


def new_encoder() -> Encoder:
    executor: Any = object()
    return Encoder(executor)


async def test_results_are_freed_with_their_encoder_though_the_batch_lives_on() -> None:
    batch = Batch([EVENT])

    for _document in range(20):
        await new_encoder().encode(told(batch), 0, Results)

    assert len(Results.alive) == 0


async def test_results_are_freed_with_their_batch_though_the_encoder_lives_on() -> None:
    encoder = new_encoder()

    await encoder.encode(told(Batch([EVENT])), 0, Results)

    assert len(Results.alive) == 0


async def test_an_encoder_keeps_the_results_of_the_newest_batches() -> None:
    encoder, batches = new_encoder(), [Batch([EVENT]) for _ in range(KEPT_BATCHES + 3)]

    for batch in batches:
        await encoder.encode(told(batch), 0, Results)

    assert len(Results.alive) == KEPT_BATCHES
    kept = [encoder.cached(told(batch), 0, Results) is not None for batch in batches]
    assert kept == [False] * 3 + [True] * KEPT_BATCHES


async def test_subscribers_of_one_encoder_share_the_results_of_a_batch() -> None:
    encoder, batch = new_encoder(), Batch([EVENT])

    made = await encoder.encode(told(batch), 0, Results)

    assert encoder.cached(told(batch), 0, Results) is made
