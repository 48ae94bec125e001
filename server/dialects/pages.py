"""The dialect of a page's stream: server-sent events whose ids are opaque cursors."""

import orjson

from server.pages.following import PageEvent
from server.stream.events import Event, EventType

_CARRY_THEIR_OWN = (EventType.QUEUED, EventType.SNAPSHOT)
"""Events whose data has a `generation_id` or a `seq` already."""


def encode(events: list[PageEvent]) -> bytes:
    """The frames of some events. To those of an answer, its id and their number in it are added."""
    return b"".join(
        [
            b"id: %s\nevent: %s\ndata: %s\n\n"
            % (event.cursor.encode("ascii"), event.type.encode(), _data(event))
            for event in events
        ]
    )


def _data(event: PageEvent) -> bytes:
    told = event.told
    if not isinstance(told, Event):
        return orjson.dumps(told)
    if told.type in _CARRY_THEIR_OWN:
        return orjson.dumps(
            orjson.loads(told.data) | {"generation_id": event.generation_id, "seq": told.seq}
        )
    assert event.generation_id is not None
    rest = told.data[1:]
    return b'{"generation_id":"%s","seq":%d%s%s' % (
        event.generation_id.encode(),
        told.seq,
        b"" if rest == b"}" else b",",
        rest,
    )
