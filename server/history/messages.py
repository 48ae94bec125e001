"""Messages: walking the tree. A branch is read from its leaf upwards, so that the newest page costs the same however long it is."""

from typing import Any, NamedTuple

from sqlalchemy import Select, bindparam, literal
from sqlmodel import Session, col, select

from server.errors import NotFound
from server.history.generations import rfc3339
from server.history.tables import GENERATIONS as G
from server.history.tables import MESSAGES as M
from server.history.tables import Conversation, Generation, Message, Role, Status
from server.ids import Prefix, is_id
from server.parts import Parts, joined_text

BRANCH_MAX_MESSAGES = 10_000


class Said(NamedTuple):
    """A message with the generation that wrote it last, if it is an answer."""

    message: Message
    generation: Generation | None

    @property
    def parts(self) -> Parts:
        return (self.generation.parts if self.generation else self.message.parts) or []

    @property
    def status(self) -> Status:
        return self.generation.status if self.generation else Status.COMPLETED


def readable_message(session: Session, message_id: str, account_id: str) -> Said:
    """A message of this account, in a conversation that is not deleted; raises NotFound."""
    if is_id(Prefix.MESSAGE, message_id):
        found = session.exec(
            select(Message, Generation)
            .join(Conversation, col(Conversation.id) == col(Message.conversation_id))
            .outerjoin(Generation, col(Generation.id) == col(Message.generation_id))
            .where(
                Message.id == message_id,
                Conversation.account_id == account_id,
                col(Conversation.deleted_at).is_(None),
            )
        ).one_or_none()
        if found is not None:
            return Said(*found)
    raise NotFound("message")


def branch(
    session: Session,
    leaf_id: str | None,
    *,
    limit: int = BRANCH_MAX_MESSAGES,
    include_leaf: bool = True,
) -> list[Said]:
    """Up to `limit` messages that end with the leaf (or its parent), oldest first."""
    if leaf_id is None:
        return []
    up: Any = select(
        col(Message.id).label("id"),
        col(Message.parent_id).label("parent_id"),
        literal(0).label("height"),
    ).where(Message.id == leaf_id)
    ancestors = up.cte("ancestors", recursive=True)
    ancestors = ancestors.union_all(
        select(col(Message.id), col(Message.parent_id), ancestors.c.height + 1)
        .join(ancestors, col(Message.id) == ancestors.c.parent_id)
        .where(ancestors.c.height < limit)
    )
    heights = (
        ancestors.c.height >= (0 if include_leaf else 1),
        ancestors.c.height < limit + (0 if include_leaf else 1),
    )
    rows = session.exec(
        select(Message, Generation)
        .join(ancestors, col(Message.id) == ancestors.c.id)
        .outerjoin(Generation, col(Generation.id) == col(Message.generation_id))
        .where(*heights)
        .order_by(ancestors.c.height.desc())
    )
    return [Said(message, generation) for message, generation in rows]


class Spoken(NamedTuple):
    """What of a message matters to a model."""

    role: Role
    status: Status
    parts: Parts


def _spoken_branch() -> Select[Any]:
    ancestors = (
        select(M.c.id, M.c.parent_id, literal(0).label("height"))
        .where(M.c.id == bindparam("leaf"))
        .cte("ancestors", recursive=True)
    )
    parents = select(M.c.id, M.c.parent_id, ancestors.c.height + 1).join(
        ancestors, M.c.id == ancestors.c.parent_id
    )
    ancestors = ancestors.union_all(parents.where(ancestors.c.height + 1 < bindparam("most")))
    joined = ancestors.join(M, M.c.id == ancestors.c.id).outerjoin(G, G.c.id == M.c.generation_id)
    return (
        select(M.c.role, G.c.status, M.c.parts, G.c.parts)
        .select_from(joined)
        .order_by(ancestors.c.height.desc())
    )


_SPOKEN_BRANCH = _spoken_branch()


def spoken_branch(session: Session, leaf_id: str, *, limit: int) -> list[Spoken]:
    """Up to `limit` messages that end with the leaf, oldest first, as a model is to know them."""
    rows = session.execute(_SPOKEN_BRANCH, {"leaf": leaf_id, "most": limit})
    return [
        Spoken(role, status or Status.COMPLETED, asked or answered or [])
        for role, status, asked, answered in rows
    ]


def siblings(session: Session, messages: list[Message]) -> dict[str, list[str]]:
    """For each message, the ids of all that share its parent, itself included, in order. One statement for the page."""
    if not messages:
        return {}
    conversation_id = messages[0].conversation_id
    parents = {message.parent_id for message in messages}
    under = col(Message.parent_id).in_([parent for parent in parents if parent])
    rows = session.execute(
        select(Message.id, Message.parent_id)
        .where(
            Message.conversation_id == conversation_id,
            (under | col(Message.parent_id).is_(None)) if None in parents else under,
        )
        .order_by(col(Message.position))
    ).all()
    return {
        message.id: [id for id, parent_id in rows if parent_id == message.parent_id]
        for message in messages
    }


def shown_message(said: Said, siblings: list[str]) -> dict[str, Any]:
    """A message as the contract shows it."""
    message, generation = said
    return {
        "id": message.id,
        "conversation_id": message.conversation_id,
        "parent_id": message.parent_id,
        "role": message.role,
        "content": said.parts,
        "text": joined_text(said.parts),
        "status": said.status,
        "model": generation.model if generation else None,
        "generation_id": message.generation_id,
        "finish_reason": generation.finish_reason if generation else None,
        "usage": generation.usage if generation else None,
        "error": generation.error if generation else None,
        "metadata": message.labels,
        "siblings": siblings,
        "created_at": rfc3339(message.created_at),
    }
