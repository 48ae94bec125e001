"""GET /api/events: the change feed as server-sent events with opaque cursors."""

import orjson
from starlette.requests import Request
from starlette.responses import Response

from server.api.http import stream_response, wait_s
from server.api.present import change_json
from server.changes.follower import AnswerEvent, ChangeEvent
from server.identity.credentials import caller_of
from server.stream.events import EventType
from server.verbs import changes

_WITH_OWN_IDS = (EventType.QUEUED, EventType.SNAPSHOT)
"""Events whose data already has a `generation_id` or a `seq`."""


async def events(request: Request) -> Response:
    """Follows the account's list, and optionally a conversation, from a cursor or from now.

    With `wait_s`, the response ends soon after the first event, or after this time: for networks
    that hold event streams back until their end.
    """
    caller = await caller_of(request)
    ends_within_s = wait_s(request) if "wait_s" in request.query_params else None
    batches = await changes.follow(
        request.state.services,
        caller,
        conversation_id=request.query_params.get("conversation_id") or None,
        after=request.headers.get("last-event-id") or request.query_params.get("after"),
    )
    if ends_within_s is not None:
        batches = changes.for_a_while(batches, ends_within_s)
    return stream_response(request, caller, batches, encode)


def encode(events: list[ChangeEvent]) -> bytes:
    """The frames of some change events."""
    return b"".join([_frame(event) for event in events])


def _frame(event: ChangeEvent) -> bytes:
    if isinstance(event.what, AnswerEvent):
        type, data = event.what.event.type, _answer_data(event.what)
    else:
        type, fields = change_json(event)
        data = orjson.dumps(fields)
    cursor = event.cursor.encode("ascii")
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (cursor, type.encode(), data)


def _answer_data(answer: AnswerEvent) -> bytes:
    """The data of an answer's event, with the generation id and the event's number added."""
    generation_id, event = answer
    if event.type in _WITH_OWN_IDS:
        added = {"generation_id": generation_id, "seq": event.seq}
        return orjson.dumps(orjson.loads(event.data) | added)
    rest = event.data[1:]
    comma = b"" if rest == b"}" else b","
    head = b'{"generation_id":"%s","seq":%d' % (generation_id.encode(), event.seq)
    return head + comma + rest
