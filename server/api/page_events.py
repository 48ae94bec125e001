"""The one stream of a page: what changes in the account's list and in one conversation, and the answers being written there."""

from collections.abc import AsyncGenerator, Callable

from starlette.requests import Request
from starlette.responses import Response

from server.api.event_stream import EventStream
from server.dialects import pages as dialect
from server.history.pages import Scope
from server.identity.credentials import caller_of
from server.pages.cursor import read_cursor
from server.pages.following import PageEvent, PageFollower


class PageBatch:
    """Some events of one page. Their ids are this reader's own, so nothing of them is shared."""

    __slots__ = ("_events",)

    def __init__(self, events: list[PageEvent]) -> None:
        self._events = events

    def encoded(self, encode: Callable[[list[PageEvent]], bytes]) -> bytes:
        """`encode(events)`."""
        return encode(self._events)


async def events(request: Request) -> Response:
    """Follows a page from the reader's cursor, or from what there is now."""
    caller = await caller_of(request)
    text = request.headers.get("last-event-id") or request.query_params.get("after")
    scope = Scope(caller.account_id, request.query_params.get("conversation_id") or None)
    follower = await request.state.pages.open(scope, read_cursor(text) if text else None)
    return EventStream(_batches(follower), dialect.encode, request=request, caller=caller)


async def _batches(follower: PageFollower) -> AsyncGenerator[PageBatch | None, None]:
    async for events in follower.follow():
        yield PageBatch(events) if events else None
