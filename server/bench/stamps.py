"""A stamp: the word a scripted token consists of, which says when it was sent, so that delay survives any joining of deltas.

The clock is `time.monotonic_ns()`, which on Linux is one clock for all processes of the machine.
"""

import re
from typing import NamedTuple

# Hexadecimal, because only that is formatted and read in C: `t<sent>.<index>`, and in the first token `.<received>` after it.
_STAMP = re.compile(r"t([0-9a-f]+)\.([0-9a-f]+)(?:\.([0-9a-f]+))?")


class Stamp(NamedTuple):
    """What one token says: when it left, its place in the answer from 0, and (first token only) when the request had arrived."""

    sent_ns: int
    place: int
    received_ns: int | None


def first_stamp(sent_ns: int, received_ns: int) -> str:
    """The word of token 0."""
    return f"t{sent_ns:x}.0.{received_ns:x}"


def stamp(sent_ns: int, index: int) -> str:
    """The word of a later token, with the space that parts it from the one before."""
    return f" t{sent_ns:x}.{index:x}"


def stamps(text: str) -> list[Stamp]:
    """Every stamp in a text, in order; a text of another model has none."""
    return [
        Stamp(int(sent, 16), int(index, 16), int(received, 16) if received else None)
        for sent, index, received in _STAMP.findall(text)
    ]


def is_whole(text: str, tokens: int) -> bool:
    """Whether the text is exactly tokens 0 to `tokens` - 1, each once and in order."""
    found = [int(index, 16) for _, index, _ in _STAMP.findall(text)]
    return found == list(range(tokens)) and text.count(" ") == max(0, tokens - 1)
