"""What an answer cost: as its provider counted, else estimated from bytes; summed over every attempt at it."""

from collections.abc import Iterable
from typing import Any, Final

import orjson

from server.parts import Parts
from server.providers.base import ModelRequest
from server.stream.events import Event, EventType

BYTES_PER_TOKEN = 4

Counts = dict[str, Any]

_BEGINNINGS: Final = (EventType.STARTED, EventType.RESUMED, EventType.RESTARTED)
_SAID: Final[dict[str, str]] = {
    EventType.TEXT_DELTA: "text",
    EventType.REASONING_DELTA: "text",
    EventType.TOOL_CALL: "arguments",
}


def tokens_of(*texts: str) -> int:
    """An estimate: four bytes are a token."""
    return sum(len(text.encode()) for text in texts) // BYTES_PER_TOKEN


def tokens_in(parts: Parts) -> int:
    """An estimate of what these parts come to."""
    return tokens_of(
        *(part.get("text") or part.get("content") or part.get("arguments") or "" for part in parts)
    )


def total(*costs: Counts | None) -> Counts | None:
    """The sum, estimated where a part of it is; None of nothing known."""
    known = [cost for cost in costs if cost]
    if not known:
        return None
    names = [
        name
        for name in dict.fromkeys(name for cost in known for name in cost)
        if name != "estimated"
    ]
    summed: Counts = {name: sum(cost.get(name, 0) for cost in known) for name in names}
    return summed | {"estimated": True} if any(cost.get("estimated") for cost in known) else summed


def cost_before(events: Iterable[Event], stored: Counts | None, asked_tokens: int) -> Counts | None:
    """What the attempts before this one cost: an estimate from what each of them wrote, or what was stored where the log knows less."""
    said_bytes = [0]
    for event in events:
        if event.type in _BEGINNINGS:
            said_bytes.append(0)
        elif name := _SAID.get(event.type):
            said_bytes[-1] += len(orjson.loads(event.data)[name].encode())
    written = total(*(_estimate(asked_tokens, said) for said in said_bytes if said))
    return max(written, stored, key=lambda cost: cost["output_tokens"] if cost else -1)


def request_tokens(request: ModelRequest | None) -> int:
    """An estimate of what a model is asked; 0 when there is no model any more."""
    if request is None:
        return 0
    return (
        tokens_of(request.system_prompt or "")
        + sum(tokens_in(turn.parts) for turn in request.turns)
        + tokens_in(request.prefix)
    )


class Cost:
    """What one attempt adds to the attempts before it."""

    def __init__(self, before: Counts | None, asked_tokens: int) -> None:
        self.said_bytes = 0
        self.counted: Counts | None = None
        """What the provider counted so far."""
        self.finished = False
        """Whether the provider came to its end: until then its counts are of the beginning only."""
        self._before, self._asked_tokens = before, asked_tokens

    def total(self) -> Counts | None:
        """What all attempts cost as of now; None when nothing is known to have been said or counted."""
        return total(self._before, self._own())

    def _own(self) -> Counts | None:
        counted = self.counted or {}
        if self.finished and "output_tokens" in counted:
            return counted
        if not self.said_bytes and not counted.get("output_tokens"):
            return None
        estimate = _estimate(self._asked_tokens, self.said_bytes)
        output_tokens = max(counted.get("output_tokens", 0), estimate["output_tokens"])
        return estimate | counted | {"output_tokens": output_tokens, "estimated": True}


def _estimate(asked_tokens: int, said_bytes: int) -> Counts:
    return {
        "input_tokens": asked_tokens,
        "output_tokens": said_bytes // BYTES_PER_TOKEN,
        "estimated": True,
    }
