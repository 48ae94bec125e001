"""Conversations: finding, listing, changing and deleting them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import func, literal, update
from sqlalchemy import select as sql_select
from sqlmodel import Session, col, select

from server.errors import Invalid, NotFound
from server.history.changes import next_change
from server.history.generations import rfc3339
from server.history.keyset import Page, Slice, keyset_page
from server.history.search import index_title
from server.history.tables import ACTIVE, Conversation, Generation, Message, now
from server.history.tables import MESSAGES as M
from server.ids import Prefix, is_id, new_id


def readable_conversation(session: Session, conversation_id: str, account_id: str) -> Conversation:
    """A conversation of this account that is not deleted; raises NotFound."""
    if is_id(Prefix.CONVERSATION, conversation_id):
        found = session.exec(
            select(Conversation).where(
                Conversation.id == conversation_id,
                Conversation.account_id == account_id,
                col(Conversation.deleted_at).is_(None),
            )
        ).one_or_none()
        if found is not None:
            return found
    raise NotFound("conversation")


class Listed(NamedTuple):
    """Which conversations a list holds, and its order."""

    archived: bool | None = None
    pinned: bool | None = None
    model: str | None = None
    by_creation: bool = False
    descending: bool = True


def page_of_conversations(
    session: Session, account_id: str, listed: Listed, part: Slice
) -> Page[Conversation]:
    """A part of the account's list of conversations; places are `(moment, id)`."""
    query = select(Conversation).where(
        Conversation.account_id == account_id, col(Conversation.deleted_at).is_(None)
    )
    for column, value in (
        (Conversation.archived, listed.archived),
        (Conversation.pinned, listed.pinned),
        (Conversation.model, listed.model),
    ):
        if value is not None:
            query = query.where(col(column) == value)
    moment = Conversation.created_at if listed.by_creation else Conversation.updated_at
    page = keyset_page(
        session, query, (col(moment), col(Conversation.id)), part, descending=listed.descending
    )
    return page._replace(items=[conversation for (conversation,) in page.items])


def create_conversation(session: Session, account_id: str, values: dict[str, Any]) -> Conversation:
    """A conversation in which nothing was said yet. Without a title it is called by its first words, as any other."""
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
    """Sets what is named in `changes`. A shown message may be any of the conversation: the branch through it is shown to its newest leaf.

    Raises NotFound, and Invalid for a message that is not there.
    """
    change = next_change(session, account_id)
    conversation = readable_conversation(session, conversation_id, account_id)
    if "shown_message_id" in changes:
        changes = changes | {
            "shown_message_id": newest_leaf(session, conversation_id, changes["shown_message_id"])
        }
    if "title" in changes:
        conversation.titled_by_person, conversation.title_due = True, False
        index_title(session, account_id, conversation_id, changes["title"], again=True)
    for name, value in changes.items():
        setattr(conversation, name, value)
    conversation.change = change
    return conversation


def newest_leaf(session: Session, conversation_id: str, message_id: str) -> str:
    """The leaf that following the newest child of each message leads to; raises Invalid when the message is not in the conversation."""
    if (
        session.exec(
            select(Message.id).where(
                Message.id == message_id, Message.conversation_id == conversation_id
            )
        ).one_or_none()
        is None
    ):
        reason = "there is no such message in this conversation"
        raise Invalid(
            "invalid_message",
            f"shown_message_id: {reason}.",
            errors=[{"pointer": "/shown_message_id", "detail": reason}],
        )
    sibling, child = M.alias(), M.alias()
    branch = (
        sql_select(M.c.id, literal(0).label("depth"))
        .where(M.c.id == message_id)
        .cte("branch", recursive=True)
    )
    newest = sql_select(func.max(sibling.c.position)).where(
        sibling.c.conversation_id == conversation_id, sibling.c.parent_id == child.c.parent_id
    )
    branch = branch.union_all(
        sql_select(child.c.id, branch.c.depth + 1)
        .join(branch, child.c.parent_id == branch.c.id)
        .where(
            child.c.conversation_id == conversation_id, child.c.position == newest.scalar_subquery()
        )
    )
    leaf: str = session.execute(
        sql_select(branch.c.id).order_by(branch.c.depth.desc()).limit(1)
    ).scalar_one()
    return leaf


def delete_conversation(
    session: Session, conversation_id: str, account_id: str
) -> list[Generation]:
    """Hides a conversation and asks its answers to stop; the generations that were being written. Raises NotFound."""
    change = next_change(session, account_id)
    conversation = readable_conversation(session, conversation_id, account_id)
    conversation.deleted_at, conversation.change = now(), change
    writing = list(
        session.exec(
            select(Generation).where(
                Generation.conversation_id == conversation_id, col(Generation.status).in_(ACTIVE)
            )
        )
    )
    session.execute(
        update(Generation)
        .where(
            col(Generation.conversation_id) == conversation_id,
            col(Generation.status).in_(ACTIVE),
            col(Generation.cancel_requested_at).is_(None),
        )
        .values(cancel_requested_at=now())
    )
    return writing


def active_generations(session: Session, conversation_ids: Sequence[str]) -> dict[str, list[str]]:
    """The generations that are queued or running, by conversation. One statement for the page."""
    if not conversation_ids:
        return {}
    rows = session.exec(
        select(Generation.conversation_id, Generation.id)
        .where(
            col(Generation.conversation_id).in_(conversation_ids),
            col(Generation.finished_at).is_(None),
        )
        .order_by(col(Generation.id))
    )
    active: dict[str, list[str]] = {}
    for conversation_id, generation_id in rows:
        active.setdefault(conversation_id, []).append(generation_id)
    return active


def restore_conversation(session: Session, conversation_id: str, account_id: str) -> Conversation:
    """Takes a deletion back; again is harmless. The answers that it stopped stay so. Raises NotFound."""
    change = next_change(session, account_id)
    found = (
        session.get(Conversation, conversation_id)
        if is_id(Prefix.CONVERSATION, conversation_id)
        else None
    )
    if found is None or found.account_id != account_id:
        raise NotFound("conversation")
    if found.deleted_at is not None:
        found.deleted_at, found.change = None, change
    return found


def shown_conversation(conversation: Conversation, active: dict[str, list[str]]) -> dict[str, Any]:
    """A conversation as the contract shows it; `active` are its generations, as `active_generations` gives them."""
    return {
        "id": conversation.id,
        "title": conversation.title,
        "pinned": conversation.pinned,
        "archived": conversation.archived,
        "model": conversation.model,
        "system_prompt": conversation.system_prompt,
        "metadata": conversation.labels,
        "shown_message_id": conversation.shown_message_id,
        "active_generations": active.get(conversation.id, []),
        "created_at": rfc3339(conversation.created_at),
        "updated_at": rfc3339(conversation.updated_at),
    }
