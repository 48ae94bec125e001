"""The one stream of a page: what changes in the account's list and in one conversation, and the answers being written there."""

from starlette.requests import Request
from starlette.responses import Response

from server.dialects import pages as dialect
from server.event_stream import EventStream
from server.history.pages import Scope
from server.identity.credentials import caller_of
from server.pages.cursor import read_cursor


async def events(request: Request) -> Response:
    """Follows a page from the reader's cursor, or from what there is now."""
    caller = await caller_of(request)
    text = request.headers.get("last-event-id") or request.query_params.get("after")
    scope = Scope(caller.account_id, request.query_params.get("conversation_id") or None)
    follower = await request.state.pages.open(scope, read_cursor(text) if text else None)
    return EventStream(follower.follow(), dialect.encode, request=request, caller=caller)
