"""Stamps: scripted tokens contain the time at which they were sent.

Delays can therefore be measured even if deltas are merged. The clock is `time.monotonic_ns()`,
which on Linux is the same for all processes of a machine.
"""

import re
from typing import NamedTuple

# `t<sent>.<index>`, and in the first token `.<received>`. Hexadecimal is the fastest to parse.
_STAMP = re.compile(r"t([0-9a-f]+)\.([0-9a-f]+)(?:\.([0-9a-f]+))?")


class Stamp(NamedTuple):
    """When a token was sent, its number from 0, and (number 0 only) when the request came in."""

    sent_ns: int
    number: int
    received_ns: int | None


def first_stamp(sent_ns: int, received_ns: int) -> str:
    """The text of token 0."""
    return f"t{sent_ns:x}.0.{received_ns:x}"


def stamp(sent_ns: int, index: int) -> str:
    """The text of a later token, which begins with a space."""
    return f" t{sent_ns:x}.{index:x}"


def stamps(text: str) -> list[Stamp]:
    """Every stamp in a text, in order. Texts of other models have none."""
    return [
        Stamp(int(sent, 16), int(index, 16), int(received, 16) if received else None)
        for sent, index, received in _STAMP.findall(text)
    ]


def is_whole(text: str, tokens: int) -> bool:
    """Whether the text is exactly the tokens 0 to `tokens` - 1, each once and in order."""
    found = [int(index, 16) for _, index, _ in _STAMP.findall(text)]
    return found == list(range(tokens)) and text.count(" ") == max(0, tokens - 1)
