"""Exports: a conversation page by page, so that its length costs no memory. Each page is a transaction of its own."""

from typing import Any, NamedTuple

from sqlalchemy import literal, tuple_
from sqlalchemy import select as sql_select
from sqlmodel import Session, col, select

from server.history.conversations import (
    active_generations,
    readable_conversation,
    shown_conversation,
)
from server.history.messages import Said, branch, shown_message, siblings
from server.history.tables import MESSAGES as M
from server.history.tables import Generation, Message

PAGE_MESSAGES = 200


class Key(NamedTuple):
    """Where a message stands among all of its conversation: first the roots, then by parent, each in the order of siblings."""

    parent_id: str | None
    position: int


def exported_conversation(
    session: Session, conversation_id: str, account_id: str
) -> dict[str, Any]:
    """The conversation itself; raises NotFound."""
    conversation = readable_conversation(session, conversation_id, account_id)
    return shown_conversation(conversation, active_generations(session, [conversation.id]))


def whole_page(
    session: Session, conversation_id: str, account_id: str, after: Key | None
) -> tuple[list[dict[str, Any]], Key | None]:
    """The messages after a key, of all branches, and the key of the last one; raises NotFound when the conversation is gone."""
    readable_conversation(session, conversation_id, account_id)
    said = whole_rows(session, conversation_id, after)
    beside = siblings(session, [each.message for each in said])
    last = said[-1].message if said else None
    return [shown_message(each, beside[each.message.id]) for each in said], Key(
        last.parent_id, last.position
    ) if last else None


def whole_rows(session: Session, conversation_id: str, after: Key | None) -> list[Said]:
    """The rows of such a page."""
    query = (
        select(Message, Generation)
        .outerjoin(Generation, col(Generation.id) == col(Message.generation_id))
        .where(Message.conversation_id == conversation_id)
        .limit(PAGE_MESSAGES)
    )
    rows = []
    if after is None or after.parent_id is None:
        roots = query.where(
            col(Message.parent_id).is_(None),
            col(Message.position) > (after.position if after else -1),
        )
        rows = list(session.exec(roots.order_by(col(Message.position))))
        after = Key("", -1)
    if not rows:
        below = query.where(
            tuple_(col(Message.parent_id), col(Message.position))
            > (after.parent_id, after.position)
        )
        rows = list(session.exec(below.order_by(col(Message.parent_id), col(Message.position))))
    return [Said(message, generation) for message, generation in rows]


def page_above(session: Session, conversation_id: str, account_id: str, leaf_id: str) -> str | None:
    """The message that stands a page above this one in its branch, or None; raises NotFound when the conversation is gone."""
    readable_conversation(session, conversation_id, account_id)
    up = (
        sql_select(M.c.id, M.c.parent_id, literal(0).label("height"))
        .where(M.c.id == leaf_id)
        .cte("up", recursive=True)
    )
    parents = sql_select(M.c.id, M.c.parent_id, up.c.height + 1).join(up, M.c.id == up.c.parent_id)
    up = up.union_all(parents.where(up.c.height < PAGE_MESSAGES))
    above: str | None = session.execute(
        sql_select(up.c.id).where(up.c.height == PAGE_MESSAGES)
    ).scalar()
    return above


def branch_page(
    session: Session, conversation_id: str, account_id: str, leaf_id: str
) -> list[Said]:
    """A page of a branch that ends with this message, oldest first; raises NotFound when the conversation is gone."""
    readable_conversation(session, conversation_id, account_id)
    return branch(session, leaf_id, limit=PAGE_MESSAGES)
