"""Content: an ordered list of parts, each a JSON object with a `type`."""

from typing import Any

Parts = list[dict[str, Any]]


def content_chars(parts: Parts) -> int:
    """How many characters the values of some parts have."""
    return sum(len(value) for part in parts for value in part.values() if isinstance(value, str))


def joined_text(parts: Parts | None) -> str:
    """The text parts of a content, joined."""
    return "".join(part["text"] for part in parts or [] if part["type"] == "text")
