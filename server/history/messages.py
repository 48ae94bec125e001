"""Messages as rows: lookups that find only what the account may read."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, Text, cast, func, or_, select
from sqlmodel import Session

from server.errors import NotFound
from server.history.tables import (
    BARE_GENERATION,
    BARE_MESSAGE,
    Conversation,
    Generation,
    Message,
    Status,
)
from server.history.tables import CONVERSATIONS as C
from server.history.tables import GENERATIONS as G
from server.history.tables import MESSAGES as M
from server.ids import Prefix, is_id
from server.parts import Parts

PAGE_MAX_CHARS = 4 * 1024 * 1024
"""The maximum content of a page of messages, as JSON; its first message always fits."""


class MessageRow(NamedTuple):
    """A message and, for an answer, the generation that wrote it last."""

    message: Message
    generation: Generation | None

    @property
    def parts(self) -> Parts:
        return (self.generation.parts if self.generation else self.message.parts) or []

    @property
    def has_content(self) -> bool:
        """Whether it was read with its content."""
        return "parts" in vars(self.generation or self.message)

    @property
    def content_id(self) -> str:
        """The id by which its content is read; see `server.history.contents`."""
        return self.generation.id if self.generation else self.message.id

    @property
    def status(self) -> Status:
        return self.generation.status if self.generation else Status.COMPLETED


def with_generation() -> Select[Any, Any]:
    """Selects messages with their last generation, joined to their conversations."""
    return (
        select(Message, Generation)
        .join(Conversation, C.c.id == M.c.conversation_id)
        .outerjoin(Generation, G.c.id == M.c.generation_id)
    )


def owned_by(account_id: Any) -> ColumnElement[bool]:
    """Matches conversations of an account without using an index on the account.

    For queries that find rows by id: SQLite would otherwise scan everything the account has.
    """
    mine: ColumnElement[bool] = func.coalesce(C.c.account_id, "") == account_id
    return mine


def readable_message(session: Session, message_id: str, account_id: str) -> MessageRow:
    """A message of this account in a conversation that is not deleted; raises NotFound."""
    if is_id(Prefix.MESSAGE, message_id):
        found = session.execute(_readable(account_id, [message_id])).one_or_none()
        if found is not None:
            return MessageRow._make(found)
    raise NotFound("message")


def messages_by_id(session: Session, account_id: str, ids: Sequence[str]) -> dict[str, MessageRow]:
    """Those of these messages that the account may read, without their content."""
    query = _readable(account_id, ids).options(*BARE_MESSAGE, *BARE_GENERATION)
    return {row.message.id: row for row in map(MessageRow._make, session.execute(query))}


def _readable(account_id: str, ids: Sequence[str]) -> Select[Any, Any]:
    return with_generation().where(M.c.id.in_(ids), owned_by(account_id), C.c.deleted_at.is_(None))


def last_messages(
    session: Session, account_id: str, conversation_ids: Sequence[str]
) -> dict[str, MessageRow]:
    """The last written message of each conversation, on any branch, without its content.

    A question and its answer are written together; the answer counts as the last.
    """
    newest = (
        select(M.c.id)
        .where(M.c.conversation_id == C.c.id)
        .order_by(M.c.change.desc(), M.c.role)
        .limit(1)
        .correlate(C)
        .scalar_subquery()
    )
    query = (
        select(Message, Generation)
        .select_from(Conversation)
        .join(Message, M.c.id == newest)
        .outerjoin(Generation, G.c.id == M.c.generation_id)
        .where(C.c.id.in_(conversation_ids), owned_by(account_id))
        .options(*BARE_MESSAGE, *BARE_GENERATION)
    )
    rows = map(MessageRow._make, session.execute(query))
    return {row.message.conversation_id: row for row in rows}


class BoundedRows(NamedTuple):
    """The first of some messages; `complete` is false when PAGE_MAX_CHARS cut them short."""

    rows: list[MessageRow]
    complete: bool


def bounded_rows(
    session: Session, which: ColumnElement[bool], order: Sequence[Any], *, limit: int
) -> BoundedRows:
    """Up to `limit` messages that match, in order, fewer when their content is large."""
    wanted = select(M.c.id, M.c.parts, M.c.generation_id, *order).where(which)
    ids = wanted.order_by(*order).limit(limit).subquery()
    in_order = [ids.c[column.name] for column in order]
    size = chars(ids.c.parts) + chars(G.c.parts)
    page = (
        select(
            ids.c.id,
            func.row_number().over(order_by=in_order).label("number"),
            func.count().over().label("count"),
            (func.sum(size).over(order_by=in_order) - size).label("chars_before"),
        )
        .outerjoin(G, G.c.id == ids.c.generation_id)
        .subquery()
    )
    query = (
        select(Message, Generation, page.c.count)
        .join(page, page.c.id == M.c.id)
        .outerjoin(Generation, G.c.id == M.c.generation_id)
        .where(or_(page.c.number == 1, page.c.chars_before < PAGE_MAX_CHARS))
        .order_by(page.c.number)
    )
    found = session.execute(query).all()
    rows = [MessageRow(message, generation) for message, generation, _count in found]
    return BoundedRows(rows, not found or found[0][2] == len(rows))


def chars(parts: Any) -> Any:
    """The length of a column of parts, as JSON."""
    return func.coalesce(func.length(cast(parts, Text)), 0)


def changed_messages(
    session: Session, conversation_id: str, since: int, until: int, *, limit: int
) -> BoundedRows:
    """Messages of a conversation whose last change is between two numbers, both included."""
    which = (M.c.conversation_id == conversation_id) & M.c.change.between(since, until)
    return bounded_rows(session, which, (M.c.change, M.c.id), limit=limit)
