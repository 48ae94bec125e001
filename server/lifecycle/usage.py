"""Token usage of an answer over all attempts: as its provider counted, else estimated."""

from collections.abc import Iterable
from typing import Any, Final

import orjson

from server.parts import Parts
from server.providers.base import ModelRequest
from server.stream.events import Event, EventType

BYTES_PER_TOKEN = 4

Counts = dict[str, Any]

_ATTEMPT_STARTS: Final = (EventType.STARTED, EventType.RESUMED, EventType.RESTARTED)
_OUTPUT_KEYS: Final[dict[str, str]] = {
    EventType.TEXT_DELTA: "text",
    EventType.REASONING_DELTA: "text",
    EventType.TOOL_CALL: "arguments",
}


def tokens_of(*texts: str) -> int:
    """An estimate: four bytes are a token."""
    return sum(len(text.encode()) for text in texts) // BYTES_PER_TOKEN


def tokens_in(parts: Parts) -> int:
    """An estimate of the tokens in these parts."""
    return tokens_of(
        *(part.get("text") or part.get("content") or part.get("arguments") or "" for part in parts)
    )


def total(*costs: Counts | None) -> Counts | None:
    """The sum, marked as estimated if a summand is; None if nothing is known."""
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


def cost_before(events: Iterable[Event], stored: Counts | None, input_tokens: int) -> Counts | None:
    """Usage of earlier attempts: an estimate from what each wrote, or what was stored if more."""
    output_bytes = [0]
    for event in events:
        if event.type in _ATTEMPT_STARTS:
            output_bytes.append(0)
        elif name := _OUTPUT_KEYS.get(event.type):
            output_bytes[-1] += len(orjson.loads(event.data)[name].encode())
    written = total(*(_estimate(input_tokens, size) for size in output_bytes if size))
    return max(written, stored, key=lambda cost: cost["output_tokens"] if cost else -1)


def request_tokens(request: ModelRequest | None) -> int:
    """An estimate of the tokens in a request; 0 without one."""
    if request is None:
        return 0
    return (
        tokens_of(request.system_prompt or "")
        + sum(tokens_in(turn.parts) for turn in request.turns)
        + tokens_in(request.prefix)
    )


class Cost:
    """The usage of one attempt, added to that of earlier attempts."""

    def __init__(self, before: Counts | None, input_tokens: int) -> None:
        self.output_bytes = 0
        self.counted: Counts | None = None
        """The counts of the provider so far."""
        self.finished = False
        """Whether the model has finished; until then the counts are incomplete."""
        self._before, self._input_tokens = before, input_tokens

    def total(self) -> Counts | None:
        """Usage of all attempts so far; None if no output or count is known."""
        return total(self._before, self._own())

    def _own(self) -> Counts | None:
        counted = self.counted or {}
        if self.finished and "output_tokens" in counted:
            return counted
        if not self.output_bytes and not counted.get("output_tokens"):
            return None
        estimate = _estimate(self._input_tokens, self.output_bytes)
        output_tokens = max(counted.get("output_tokens", 0), estimate["output_tokens"])
        return estimate | counted | {"output_tokens": output_tokens, "estimated": True}


def _estimate(input_tokens: int, output_bytes: int) -> Counts:
    return {
        "input_tokens": input_tokens,
        "output_tokens": output_bytes // BYTES_PER_TOKEN,
        "estimated": True,
    }
