"""Thoughts in the text of an answer, wherever the stream is cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.providers.base import ReasoningDelta, TextDelta
from server.providers.thoughts import Thoughts
from tests.upstream import split

pytestmark = pytest.mark.quick

ANSWERS = {
    "<think>so</think>Hello": ("so", "Hello"),
    "\n<thinking>\n so \n</thinking>\n\n Hello": ("so \n", "Hello"),
    "<think>\n\n</think>\n\nHello": ("", "Hello"),
    "<think>a < b </thin </think>ok": ("a < b </thin ", "ok"),
    "<think>never closed </thi": ("never closed </thi", ""),
    "<think>so</think>see <think>x</think>": ("so", "see <think>x</think>"),
    "Hello <think>so</think>": ("", "Hello <think>so</think>"),
    "</think>\n\nHello": ("", "Hello"),
    "\n</thinking>Hello": ("", "Hello"),
    "Hello </think>": ("", "Hello </think>"),
    "</thin": ("", "</thin"),
    "<thin ice>": ("", "<thin ice>"),
    "`<think>`": ("", "`<think>`"),
    "  indented": ("", "  indented"),
    "<": ("", "<"),
    "": ("", ""),
}


def read(thoughts: Thoughts, pieces: list[str]) -> tuple[str, str]:
    deltas = [delta for piece in pieces for delta in thoughts.feed(piece)] + thoughts.end()
    assert all(isinstance(delta, ReasoningDelta | TextDelta) and delta.text for delta in deltas)
    thought = "".join(each.text for each in deltas if isinstance(each, ReasoningDelta))
    return thought, "".join(each.text for each in deltas if isinstance(each, TextDelta))


@given(st.sampled_from(sorted(ANSWERS)), st.lists(st.integers(0, 100), max_size=12))
def test_a_thought_at_the_beginning_is_reasoning(answer: str, cuts: list[int]) -> None:
    pieces = [piece for piece in split(answer, cuts) if piece]

    assert read(Thoughts(), pieces) == ANSWERS[answer]


@given(st.lists(st.integers(0, 100), max_size=12))
def test_an_answer_can_begin_inside_a_thought(cuts: list[int]) -> None:
    pieces = [piece for piece in split("so\n</think>\nHello", cuts) if piece]

    assert read(Thoughts(opened=True), pieces) == ("so\n", "Hello")
