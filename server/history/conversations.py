"""Conversations as rows: finding, listing, changing and deleting them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlmodel import Session

from server.errors import NotFound
from server.history.changes import next_change
from server.history.generations import active_generations, active_ids, cancel_active
from server.history.keyset import Page, Slice, keyset_page
from server.history.messages import owned_by
from server.history.search import index_title
from server.history.tables import BARE_CONVERSATION, Conversation, Generation, now
from server.history.tables import CONVERSATIONS as C
from server.history.tables import GENERATIONS as G
from server.history.tree import newest_leaf
from server.ids import Prefix, is_id, new_id


class ConversationRow(NamedTuple):
    """A conversation and the ids of its generations that have not ended."""

    conversation: Conversation
    active_ids: list[str]


def readable_conversation(session: Session, conversation_id: str, account_id: str) -> Conversation:
    """A conversation of this account that is not deleted; raises NotFound."""
    if is_id(Prefix.CONVERSATION, conversation_id):
        found: Conversation | None = session.scalars(
            select(Conversation).where(
                C.c.id == conversation_id,
                C.c.account_id == account_id,
                C.c.deleted_at.is_(None),
            )
        ).one_or_none()
        if found is not None:
            return found
    raise NotFound("conversation")


def conversation_row(session: Session, conversation_id: str, account_id: str) -> ConversationRow:
    """A conversation with its active generations, see above; raises NotFound."""
    return with_active(session, [readable_conversation(session, conversation_id, account_id)])[0]


def with_active(session: Session, conversations: Sequence[Conversation]) -> list[ConversationRow]:
    """Conversations with their active generations, in one statement."""
    active = active_ids(session, [each.id for each in conversations]) if conversations else {}
    return [ConversationRow(each, active.get(each.id, [])) for each in conversations]


def conversations_by_id(
    session: Session, account_id: str, ids: Sequence[str]
) -> dict[str, Conversation]:
    """Those of these conversations that the account may read, without their system prompts."""
    query = (
        select(Conversation)
        .where(C.c.id.in_(ids), owned_by(account_id), C.c.deleted_at.is_(None))
        .options(*BARE_CONVERSATION)
    )
    return {conversation.id: conversation for conversation in session.scalars(query)}


class Listing(NamedTuple):
    """Which conversations a list holds, and its order."""

    archived: bool | None = None
    pinned: bool | None = None
    model: str | None = None
    by_creation: bool = False
    descending: bool = True


def page_of_conversations(
    session: Session, account_id: str, listing: Listing, part: Slice, *, prompts: bool = True
) -> Page[Conversation]:
    """A slice of the account's conversations; its cursors are `(time, id)`.

    `prompts`: whether the rows have their system prompts.
    """
    query = select(Conversation).where(C.c.account_id == account_id, C.c.deleted_at.is_(None))
    if not prompts:
        query = query.options(*BARE_CONVERSATION)
    for name in ("archived", "pinned", "model"):
        if (value := getattr(listing, name)) is not None:
            query = query.where(C.c[name] == value)
    time = C.c.created_at if listing.by_creation else C.c.updated_at
    page = keyset_page(session, query, (time, C.c.id), part, descending=listing.descending)
    return page._replace(items=[conversation for (conversation,) in page.items])


def create_conversation(session: Session, account_id: str, values: dict[str, Any]) -> Conversation:
    """An empty conversation. Without a title it takes the first words of its first message."""
    titled = values.get("title") is not None
    conversation = Conversation(
        id=new_id(Prefix.CONVERSATION),
        account_id=account_id,
        change=next_change(session, account_id),
        titled_by_person=titled,
        title_due=not titled,
        **{name: value for name, value in values.items() if name != "title" or titled},
    )
    session.add(conversation)
    if titled:
        index_title(session, account_id, conversation.id, conversation.title)
    return conversation


def change_conversation(
    session: Session, conversation_id: str, account_id: str, changes: dict[str, Any]
) -> Conversation:
    """Sets the columns named in `changes`.

    `shown_message_id` may be any message of the conversation: the branch through it is shown down
    to its newest leaf. Raises NotFound, and Invalid for a message that is not there.
    """
    change = next_change(session, account_id)
    conversation = readable_conversation(session, conversation_id, account_id)
    if "shown_message_id" in changes:
        leaf = newest_leaf(session, conversation_id, changes["shown_message_id"])
        changes = changes | {"shown_message_id": leaf}
    if "title" in changes:
        conversation.titled_by_person, conversation.title_due = True, False
        index_title(session, account_id, conversation_id, changes["title"], replace=True)
    for name, value in changes.items():
        setattr(conversation, name, value)
    conversation.change = change
    return conversation


def delete_conversation(
    session: Session, conversation_id: str, account_id: str
) -> list[Generation]:
    """Hides a conversation, cancels its active generations and returns these.

    Raises NotFound.
    """
    change = next_change(session, account_id)
    conversation = readable_conversation(session, conversation_id, account_id)
    conversation.deleted_at, conversation.change = now(), change
    active = active_generations(session, account_id, [conversation_id])
    cancel_active(session, G.c.conversation_id == conversation_id)
    return active.get(conversation_id, [])


def restore_conversation(session: Session, conversation_id: str, account_id: str) -> Conversation:
    """Undoes a deletion; idempotent. Its answers stay cancelled. Raises NotFound."""
    change = next_change(session, account_id)
    is_well_formed = is_id(Prefix.CONVERSATION, conversation_id)
    found = session.get(Conversation, conversation_id) if is_well_formed else None
    if found is None or found.account_id != account_id:
        raise NotFound("conversation")
    if found.deleted_at is not None:
        found.deleted_at, found.change = None, change
    return found
