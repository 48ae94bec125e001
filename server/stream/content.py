"""Content: the ordered parts of an answer, as its events make them."""

from typing import Any

import orjson

from server.parts import Parts
from server.stream.events import Event, EventType

_DELTAS = {EventType.TEXT_DELTA: "text", EventType.REASONING_DELTA: "reasoning"}
_TOOLS = {
    EventType.TOOL_CALL: ("call_id", "name", "arguments"),
    EventType.TOOL_RESULT: ("call_id",),
}


class DamagedEvent(ValueError):
    """An event whose data no content can be made of. It costs its log, and nothing else."""


class Content:
    """The content after every event so far. Text is kept in pieces until `parts` is called."""

    def __init__(self, parts: Parts | None = None) -> None:
        self._parts: list[tuple[dict[str, Any], list[str]]] = []
        self.replace(parts or [])

    def replace(self, parts: Parts) -> None:
        """Forgets everything and starts from `parts`."""
        self._parts = [
            (
                {k: v for k, v in part.items() if k != "text"},
                [part["text"]] if "text" in part else [],
            )
            for part in parts
        ]

    def apply(self, event: Event) -> None:
        """Adds one event; those that carry no content change nothing. Raises DamagedEvent."""
        try:
            self._apply(event)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise DamagedEvent(f"event {event.seq} ({event.type}): {error!r}") from error

    def _apply(self, event: Event) -> None:
        match event.type:
            case EventType.TEXT_DELTA | EventType.REASONING_DELTA:
                type, data = EventType(event.type), orjson.loads(event.data)
                part, text = data["part"], _text(data["text"])
                if part not in range(len(self._parts) + 1):
                    raise IndexError(f"there is no part {part}")
                if part < len(self._parts) and self._parts[part][0]["type"] != _DELTAS[type]:
                    raise TypeError(f"part {part} is no {_DELTAS[type]}")
                self.add_text(type, part, text)
            case EventType.TOOL_CALL | EventType.TOOL_RESULT:
                data = orjson.loads(event.data)
                for name in _TOOLS[EventType(event.type)]:
                    _text(data[name])
                rest = {k: v for k, v in data.items() if k not in ("type", "part")}
                self._parts.append(({"type": str(event.type), **rest}, []))
            case EventType.RESTARTED:
                self.replace([])
            case EventType.SNAPSHOT:
                content = orjson.loads(event.data)["content"]
                for part in content:
                    if _text(part["type"]) in _DELTAS.values():
                        _text(part["text"])
                self.replace(content)

    def add_text(self, type: EventType, part: int, text: str) -> None:
        """Adds to text or reasoning part number `part`, which opens with its first delta."""
        if part == len(self._parts):
            self._parts.append(({"type": _DELTAS[type]}, []))
        self._parts[part][1].append(text)

    def next_part(self, type: EventType) -> int:
        """The index of the part that a delta of `type` belongs to: the last part if it has that type."""
        if self._parts and self._parts[-1][0]["type"] == _DELTAS.get(type):
            return len(self._parts) - 1
        return len(self._parts)

    @property
    def part_count(self) -> int:
        return len(self._parts)

    def parts(self) -> Parts:
        """The parts as they are stored and answered."""
        return [
            {**part, "text": "".join(text)} if part["type"] in _DELTAS.values() else dict(part)
            for part, text in self._parts
        ]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    return value
