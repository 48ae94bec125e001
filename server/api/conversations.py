"""Conversations and their messages: reading, changing, deleting."""

from datetime import datetime
from typing import Any

from sqlmodel import Session
from starlette.requests import Request
from starlette.responses import Response

from server.api.http import Json, flag, page_limit, read_body, read_time_cursor, time_cursor
from server.bodies import ChangeConversation
from server.errors import InvalidCursor
from server.generate.reading import stop_now
from server.history.conversations import (
    Listed,
    active_generations,
    change_conversation,
    delete_conversation,
    page_of_conversations,
    readable_conversation,
    shown_conversation,
)
from server.history.keyset import Slice
from server.history.messages import Said, branch, readable_message, shown_message, siblings
from server.identity.credentials import caller_of


async def list_(request: Request) -> Response:
    """The caller's conversations, the one last written in first."""
    caller, limit, before = await caller_of(request), page_limit(request), read_time_cursor(request)
    archived = flag(request, "archived")
    return Json(
        await request.state.resources.database.read(
            _list, caller.account_id, limit=limit, before=before, archived=archived
        )
    )


async def show(request: Request) -> Response:
    """One conversation."""
    caller = await caller_of(request)
    return Json(
        await request.state.resources.database.read(
            _conversation, request.path_params["id"], caller.account_id
        )
    )


async def change(request: Request) -> Response:
    """Changes what is named, and answers with the conversation."""
    caller, body = await caller_of(request), await read_body(request, ChangeConversation)
    resources = request.state.resources
    changes = body.changes(resources.models.id_of)
    return Json(
        await resources.database.write(
            _change, request.path_params["id"], caller.account_id, changes
        )
    )


async def delete(request: Request) -> Response:
    """Hides a conversation at once, and stops what is being written in it."""
    caller, resources = await caller_of(request), request.state.resources
    for generation in await resources.database.write(
        delete_conversation, request.path_params["id"], caller.account_id
    ):
        await stop_now(resources.settler, resources.queue, generation)
    return Response(status_code=204)


async def messages(request: Request) -> Response:
    """A page of the shown branch (or of the one that ends with `?leaf=`), oldest first; `next` leads to the page before it."""
    caller, limit = await caller_of(request), page_limit(request)
    place = {name: request.query_params.get(name) for name in ("before", "leaf")}
    page = await request.state.resources.database.read(
        _page, request.path_params["id"], caller.account_id, limit, **place
    )
    return Json(page)


async def message(request: Request) -> Response:
    """One message."""
    caller = await caller_of(request)
    return Json(
        await request.state.resources.database.read(
            _message, request.path_params["id"], caller.account_id
        )
    )


def _list(
    session: Session,
    account_id: str,
    *,
    limit: int,
    before: tuple[datetime, str] | None,
    archived: bool | None,
) -> dict[str, Any]:
    page = page_of_conversations(
        session, account_id, Listed(archived=archived), Slice(limit, after=before)
    )
    active = active_generations(session, [conversation.id for conversation in page.items])
    data = [shown_conversation(conversation, active) for conversation in page.items]
    return {
        "data": data,
        "next": time_cursor(page.items[-1].updated_at, page.items[-1].id)
        if page.has_next
        else None,
    }


def _conversation(session: Session, conversation_id: str, account_id: str) -> dict[str, Any]:
    found = readable_conversation(session, conversation_id, account_id)
    return shown_conversation(found, active_generations(session, [found.id]))


def _change(
    session: Session, conversation_id: str, account_id: str, changes: dict[str, Any]
) -> dict[str, Any]:
    changed = change_conversation(session, conversation_id, account_id, changes)
    return shown_conversation(changed, active_generations(session, [changed.id]))


def _page(
    session: Session,
    conversation_id: str,
    account_id: str,
    limit: int,
    *,
    before: str | None,
    leaf: str | None,
) -> dict[str, Any]:
    conversation = readable_conversation(session, conversation_id, account_id)
    start = before or leaf or None
    if (
        start is not None
        and readable_message(session, start, account_id).message.conversation_id != conversation_id
    ):
        raise InvalidCursor("There is no such message in this conversation.")
    said = branch(
        session, start or conversation.shown_message_id, limit=limit + 1, include_leaf=not before
    )
    shown = said[-limit:]
    return {
        "data": _shown(session, shown),
        "next": shown[0].message.id if len(said) > limit else None,
    }


def _message(session: Session, message_id: str, account_id: str) -> dict[str, Any]:
    return _shown(session, [readable_message(session, message_id, account_id)])[0]


def _shown(session: Session, said: list[Said]) -> list[dict[str, Any]]:
    beside = siblings(session, [each.message for each in said])
    return [shown_message(each, beside[each.message.id]) for each in said]
