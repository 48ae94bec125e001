"""The native dialect: server-sent events, one frame per event.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from server.stream.events import Event
from server.stream.feed import Batch

OPEN = b": open\nretry: 1000\n\n"
HEARTBEAT = b": hb\n\n"


def encode(events: list[Event]) -> bytes:
    """The frames of some events. The data of an event is one line of JSON."""
    return b"".join(
        [
            b"id: %d\nevent: %s\ndata: %s\n\n" % (seq, type.encode(), data)
            for seq, type, data in events
        ]
    )


def encode_batch(batch: Batch) -> bytes:
    """The frames of a batch, encoded once for all its readers."""
    return batch.encode_once(encode)
