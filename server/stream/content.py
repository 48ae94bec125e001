"""Content: the ordered parts of an answer, built from its events."""

from typing import Any

import orjson

from server.parts import Parts
from server.stream.events import Event, EventType

_DELTAS = {EventType.TEXT_DELTA: "text", EventType.REASONING_DELTA: "reasoning"}


class Content:
    """The content after every event so far. Text is kept in pieces until `parts` is called."""

    def __init__(self, parts: Parts | None = None) -> None:
        self._parts: list[tuple[dict[str, Any], list[str]]] = []
        self.replace(parts or [])

    def replace(self, parts: Parts) -> None:
        """Replaces all content with `parts`."""
        self._parts = [
            (
                {k: v for k, v in part.items() if k != "text"},
                [part["text"]] if "text" in part else [],
            )
            for part in parts
        ]

    def apply(self, event: Event) -> None:
        """Applies one event; events without content change nothing."""
        match event.type:
            case EventType.TEXT_DELTA | EventType.REASONING_DELTA:
                data = orjson.loads(event.data)
                self.add_text(EventType(event.type), data["part"], data["text"])
            case EventType.TOOL_CALL | EventType.TOOL_RESULT:
                data = orjson.loads(event.data)
                self._parts.append(
                    (
                        {"type": str(event.type), **{k: v for k, v in data.items() if k != "part"}},
                        [],
                    )
                )
            case EventType.RESTARTED:
                self.replace([])
            case EventType.SNAPSHOT:
                self.replace(orjson.loads(event.data)["content"])

    def add_text(self, type: EventType, part: int, text: str) -> None:
        """Adds to text or reasoning part number `part`, which opens with its first delta."""
        if part == len(self._parts):
            self._parts.append(({"type": _DELTAS[type]}, []))
        self._parts[part][1].append(text)

    def next_part(self, type: EventType) -> int:
        """The part that a delta of `type` belongs to: the last one if it has that type."""
        if self._parts and self._parts[-1][0]["type"] == _DELTAS.get(type):
            return len(self._parts) - 1
        return len(self._parts)

    def parts(self) -> Parts:
        """The parts, as they are stored and returned to clients."""
        return [
            {**part, "text": "".join(text)} if part["type"] in _DELTAS.values() else dict(part)
            for part, text in self._parts
        ]
