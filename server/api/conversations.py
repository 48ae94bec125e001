"""Conversations: listing, reading, changing, deleting and exporting them."""

from starlette.requests import Request
from starlette.responses import Response

from server.api.http import (
    Json,
    flag,
    page_limit,
    parse_time_cursor,
    read_body,
)
from server.api.present import conversation_json, message_json, page_json
from server.cursors import time_cursor
from server.history.conversations import Listing
from server.history.keyset import Slice
from server.identity.credentials import caller_of
from server.verbs import conversations
from server.verbs.inputs import ChangeConversation


async def list_(request: Request) -> Response:
    """Lists the account's conversations, the last updated first."""
    caller, services = await caller_of(request), request.state.services
    part = Slice(page_limit(request), after=parse_time_cursor(request))
    listing = Listing(archived=flag(request, "archived"))
    page = await conversations.page_with_active(services, caller, listing, part)
    next = None
    if page.has_next:
        last = page.items[-1].conversation
        next = time_cursor(last.updated_at, last.id)
    return Json(page_json([conversation_json(row) for row in page.items], next))


async def show(request: Request) -> Response:
    """Returns a conversation."""
    caller, services = await caller_of(request), request.state.services
    row = await conversations.get(services, caller, request.path_params["id"])
    return Json(conversation_json(row))


async def change(request: Request) -> Response:
    """Changes the given fields, and returns the conversation."""
    caller, services = await caller_of(request), request.state.services
    body = await read_body(request, ChangeConversation)
    row = await conversations.change(services, caller, request.path_params["id"], body)
    return Json(conversation_json(row))


async def delete(request: Request) -> Response:
    """Hides a conversation at once, and cancels its active answers."""
    caller, services = await caller_of(request), request.state.services
    await conversations.delete(services, caller, request.path_params["id"])
    return Response(status_code=204)


async def messages(request: Request) -> Response:
    """Lists the shown branch, or the one that ends with `?leaf=`, oldest message first.

    `next` leads to the page before it.
    """
    caller, services, query = await caller_of(request), request.state.services, request.query_params
    page = await conversations.branch_page(
        services,
        caller,
        request.path_params["id"],
        limit=page_limit(request),
        before=query.get("before"),
        leaf=query.get("leaf"),
    )
    next = page.items[0].row.message.id if page.has_previous else None
    return Json(page_json([message_json(*view) for view in page.items], next))
