"""Usage: what the provider counted where it came to its end, else an estimate; summed over every attempt."""

from typing import Any

import pytest

from server.lifecycle.usage import Cost, cost_before, total
from server.stream.events import EventType, make_event

pytestmark = pytest.mark.quick

COUNTED = {"input_tokens": 11, "output_tokens": 3}


def estimate(asked: int, said: int) -> dict[str, Any]:
    return {"input_tokens": asked, "output_tokens": said, "estimated": True}


def test_what_the_provider_counted_at_its_end_is_taken_as_it_is() -> None:
    cost = Cost(None, input_tokens=100)
    cost.output_bytes, cost.counted, cost.finished = 400, COUNTED | {"cached_input_tokens": 7}, True

    assert cost.total() == COUNTED | {"cached_input_tokens": 7}


@pytest.mark.parametrize(("output_bytes", "output_tokens"), [(0, 3), (8, 3), (400, 100)])
def test_counts_of_an_answer_that_was_cut_off_are_an_estimate(
    output_bytes: int, output_tokens: int
) -> None:
    cost = Cost(None, input_tokens=100)
    cost.output_bytes, cost.counted = output_bytes, COUNTED

    assert cost.total() == estimate(11, output_tokens)


def test_nothing_said_and_nothing_counted_is_unknown() -> None:
    assert Cost(None, input_tokens=100).total() is None


def test_attempts_are_summed_and_flagged_where_one_is_an_estimate() -> None:
    assert total(COUNTED, None, COUNTED | {"reasoning_tokens": 2}) == {
        "input_tokens": 22,
        "output_tokens": 6,
        "reasoning_tokens": 2,
    }
    assert total(COUNTED, estimate(5, 1)) == estimate(16, 4)
    assert total(None, None) is None


def test_earlier_attempts_are_read_from_what_each_of_them_wrote() -> None:
    events = [
        make_event(2, EventType.STARTED, {"attempt": 1}),
        make_event(3, EventType.REASONING_DELTA, {"part": 0, "text": "r" * 8}),
        make_event(4, EventType.TEXT_DELTA, {"part": 1, "text": "é" * 16}),
        make_event(5, EventType.RESUMED, {"attempt": 2}),
        make_event(6, EventType.RESTARTED, {"attempt": 3}),
        make_event(
            7,
            EventType.TOOL_CALL,
            {"part": 0, "call_id": "c", "name": "n", "arguments": '{"a": 1}'},
        ),
    ]

    assert cost_before(events, None, 50) == estimate(100, 12)
    assert cost_before(events, estimate(100, 5), 50) == estimate(100, 12)
    assert cost_before([], estimate(100, 5), 50) == estimate(100, 5)
    assert cost_before([], None, 50) is None
