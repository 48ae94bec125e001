"""Parsing the events of a stream that arrived together."""

from typing import Final, NamedTuple

import orjson

from server.bench.stamps import stamps

STARTS_OVER: Final = frozenset({"restarted", "snapshot"})
_WITH_TEXT: Final = frozenset({"text_delta", "snapshot"})


class Event(NamedTuple):
    """The parts of an event that the client uses."""

    seq: int
    name: str
    text: str


class Block(NamedTuple):
    """Parsed events: once, even if a thousand readers receive the same bytes.

    If `starts_over`, earlier text is discarded. `text` is the text from there on, and `sent_ns`
    are the send times of its tokens.
    """

    events: tuple[Event, ...]
    starts_over: bool
    text: str
    sent_ns: tuple[int, ...]
    received_ns: int | None
    broken: str = ""
    """The message that was received instead of events."""


def parse(raw: bytes) -> Block:
    """Parses complete events; comments and other fields are ignored."""
    events: list[Event] = []
    texts: list[str] = []
    starts_over = False
    for frame in raw.split(b"\n\n"):
        seq, name, data = 0, "", b""
        for line in frame.split(b"\n"):
            field, _, value = line.partition(b": ")
            if field == b"id":
                seq = int(value)
            elif field == b"event":
                name = value.decode()
            elif field == b"data":
                data = value
        if not name:
            continue
        if name in STARTS_OVER:
            starts_over = True
            texts.clear()
        text: str = orjson.loads(data)["text"] if name in _WITH_TEXT else ""
        texts.append(text)
        events.append(Event(seq, name, text))
    whole = "".join(texts)
    found = stamps(whole)
    return Block(
        tuple(events),
        starts_over,
        whole,
        tuple(one.sent_ns for one in found),
        found[0].received_ns if found else None,
    )
