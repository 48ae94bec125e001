"""Conversations and their messages: reading, listing, changing, deleting."""

from typing import Any, NamedTuple

from sqlmodel import Session

from server.errors import InvalidCursor, NotFound
from server.history import conversations as rows
from server.history.accounts import credential_expiry
from server.history.conversations import (
    ConversationRow,
    Listing,
    conversation_row,
    page_of_conversations,
    readable_conversation,
    with_active,
)
from server.history.keyset import Page, Slice
from server.history.messages import MessageRow, readable_message
from server.history.tables import Conversation
from server.history.tree import SiblingWindow, branch, sibling_windows
from server.identity.callers import Caller
from server.resources import Services
from server.verbs.generations import stop
from server.verbs.inputs import ChangeConversation, NewConversation


async def get(services: Services, caller: Caller, conversation_id: str) -> ConversationRow:
    """A conversation; raises NotFound."""
    return await services.database.read(conversation_row, conversation_id, caller.account_id)


async def page(
    services: Services, caller: Caller, listing: Listing, part: Slice
) -> Page[Conversation]:
    """A slice of the account's conversations; its cursors are `(time, id)`.

    The rows have no system prompts.
    """
    return await services.database.read(
        page_of_conversations, caller.account_id, listing, part, prompts=False
    )


async def page_with_active(
    services: Services, caller: Caller, listing: Listing, part: Slice
) -> Page[ConversationRow]:
    """A slice of conversations with the system prompt and the active generations of each."""
    return await services.database.read(_page_with_active, caller.account_id, listing, part)


async def create(services: Services, caller: Caller, new: NewConversation) -> Conversation:
    """A conversation without messages. Raises Invalid for an unknown model."""
    values = new.model_dump(exclude={"metadata"}) | {
        "labels": new.metadata,
        "model": services.models.id_of(new.model),
    }
    return await services.database.write(_create, caller, values)


async def change(
    services: Services, caller: Caller, conversation_id: str, changes: ChangeConversation
) -> ConversationRow:
    """Changes the given fields. Raises NotFound, and Invalid for an unknown model or message."""
    values = changes.model_dump(exclude_unset=True)
    if "metadata" in values:
        values["labels"] = values.pop("metadata")
    if "model" in values:
        values["model"] = services.models.id_of(values["model"])
    return await services.database.write(_change, conversation_id, caller.account_id, values)


async def delete(services: Services, caller: Caller, conversation_id: str) -> None:
    """Hides a conversation at once and cancels its active answers. Raises NotFound."""
    active = await services.database.write(
        rows.delete_conversation, conversation_id, caller.account_id
    )
    await stop(services, active)


async def restore(services: Services, caller: Caller, conversation_id: str) -> Conversation:
    """Undoes a deletion; idempotent. Raises NotFound."""
    return await services.database.write(
        rows.restore_conversation, conversation_id, caller.account_id
    )


class MessageView(NamedTuple):
    """A message and its siblings."""

    row: MessageRow
    siblings: SiblingWindow


async def message(services: Services, caller: Caller, message_id: str) -> MessageView:
    """A message; raises NotFound."""
    return await services.database.read(_message, message_id, caller.account_id)


async def branch_page(
    services: Services,
    caller: Caller,
    conversation_id: str,
    *,
    limit: int,
    before: str | None = None,
    leaf: str | None = None,
) -> Page[MessageView]:
    """The last messages of a branch, oldest first.

    It ends with `leaf`, or just before the message `before`, or with the shown leaf. Raises
    NotFound, and InvalidCursor for a bad `before` and for a message of another conversation.
    """
    return await services.database.read(
        _branch_page, conversation_id, caller.account_id, limit, before, leaf
    )


def check_contains(conversation_id: str, row: MessageRow) -> None:
    """Raises InvalidCursor for a message of another conversation."""
    if row.message.conversation_id != conversation_id:
        raise InvalidCursor("There is no such message in this conversation.")


def _page_with_active(
    session: Session, account_id: str, listing: Listing, part: Slice
) -> Page[ConversationRow]:
    page = page_of_conversations(session, account_id, listing, part)
    return Page(with_active(session, page.items), page.has_previous, page.has_next)


def _create(session: Session, caller: Caller, values: dict[str, Any]) -> Conversation:
    created = rows.create_conversation(session, caller.account_id, values)
    credential_expiry(session, caller.key_id, caller.session_sha256)
    return created


def _change(
    session: Session, conversation_id: str, account_id: str, values: dict[str, object]
) -> ConversationRow:
    changed = rows.change_conversation(session, conversation_id, account_id, values)
    return with_active(session, [changed])[0]


def _message(session: Session, message_id: str, account_id: str) -> MessageView:
    return _views(session, [readable_message(session, message_id, account_id)])[0]


def _branch_page(
    session: Session,
    conversation_id: str,
    account_id: str,
    limit: int,
    before: str | None,
    leaf: str | None,
) -> Page[MessageView]:
    conversation = readable_conversation(session, conversation_id, account_id)
    start = before or leaf or None
    if start is not None:
        _check_start(session, conversation_id, account_id, start, is_cursor=bool(before))
    page = branch(
        session, start or conversation.shown_message_id, limit=limit, include_leaf=not before
    )
    return Page(_views(session, page.items), page.has_previous, page.has_next)


def _check_start(
    session: Session, conversation_id: str, account_id: str, message_id: str, *, is_cursor: bool
) -> None:
    """Raises InvalidCursor unless it is a message of the conversation; NotFound for no message."""
    try:
        found = readable_message(session, message_id, account_id)
    except NotFound:
        if not is_cursor:
            raise
        raise InvalidCursor("before: this is not a valid cursor.") from None
    check_contains(conversation_id, found)


def _views(session: Session, messages: list[MessageRow]) -> list[MessageView]:
    windows = sibling_windows(session, [row.message for row in messages])
    return [MessageView(row, windows[row.message.id]) for row in messages]
