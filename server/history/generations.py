"""Generations as rows: lookups that find only what the account may read; cancellation."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from sqlalchemy import ColumnElement, bindparam, func, select, tuple_, update
from sqlalchemy.orm import defer
from sqlmodel import Session, col

from server.errors import NotFound
from server.history.changes import next_change
from server.history.keyset import Page, Slice
from server.history.tables import ACTIVE, BARE_GENERATION, Conversation, Generation, now
from server.history.tables import CONVERSATIONS as C
from server.history.tables import GENERATIONS as G
from server.ids import Prefix, is_id
from server.parts import Parts


class Written(NamedTuple):
    """Content as of event `seq`."""

    parts: Parts
    seq: int


_READABLE = (  # built once: every reader of an answer begins with it
    select(Generation)
    .join(Conversation, C.c.id == G.c.conversation_id)
    .where(
        G.c.id == bindparam("id"),
        G.c.account_id == bindparam("account"),
        C.c.deleted_at.is_(None),
    )
)


def readable_generation(session: Session, generation_id: str, account_id: str) -> Generation:
    """A generation of this account in a conversation that is not deleted; raises NotFound."""
    if is_id(Prefix.GENERATION, generation_id):
        sought = {"id": generation_id, "account": account_id}
        found: Generation | None = session.scalars(_READABLE, sought).one_or_none()
        if found is not None:
            return found
    raise NotFound("generation")


def generations_by_id(
    session: Session, account_id: str, ids: Sequence[str]
) -> dict[str, Generation]:
    """Those of these generations that the account may read, without their content."""
    query = (
        select(Generation)
        .join(Conversation, C.c.id == G.c.conversation_id)
        .where(G.c.id.in_(ids), G.c.account_id == account_id, C.c.deleted_at.is_(None))
        .options(*BARE_GENERATION)
    )
    return {generation.id: generation for generation in session.scalars(query)}


def request_cancel(session: Session, generation_id: str, account_id: str) -> Generation:
    """Requests cancellation, unless the generation has ended; raises NotFound."""
    generation = readable_generation(session, generation_id, account_id)
    if generation.status.terminal or generation.cancel_requested_at is not None:
        return generation  # nothing changes
    # The account's row first, as in `settle`: two orders of locking would deadlock.
    next_change(session, account_id)
    cancel_active(session, G.c.id == generation_id)
    session.expire_all()
    return session.get_one(Generation, generation_id)


def cancel_active(session: Session, which: Any) -> None:
    """Requests cancellation of every active generation that matches."""
    session.execute(
        update(G)
        .where(which, G.c.status.in_(ACTIVE), G.c.cancel_requested_at.is_(None))
        .values(cancel_requested_at=now())
    )


def settled_generations(session: Session, generation_ids: Sequence[str]) -> list[Generation]:
    """Those of these generations that have ended."""
    return list(session.scalars(_settled(generation_ids)))


def settled_without_content(session: Session, generation_ids: Sequence[str]) -> list[Generation]:
    """The same for those who do not need `parts`, which raise when they are read."""
    without_parts = defer(cast("Any", Generation.parts), raiseload=True)
    return list(session.scalars(_settled(generation_ids).options(without_parts)))


def _settled(generation_ids: Sequence[str]) -> Any:
    return select(Generation).where(G.c.id.in_(generation_ids), G.c.finished_at.isnot(None))


def generations_in(
    session: Session, conversation_id: str, generation_ids: Sequence[str]
) -> list[Generation]:
    """Those of these generations that belong to this conversation."""
    query = select(Generation).where(
        G.c.id.in_(generation_ids), G.c.conversation_id == conversation_id
    )
    return list(session.scalars(query))


def active_generations(
    session: Session, account_id: str, conversation_ids: Sequence[str]
) -> dict[str, list[Generation]]:
    """The generations of each conversation that have not ended, in the order of their requests.

    They come without their content.
    """
    found: dict[str, list[Generation]] = defaultdict(list)
    query = (
        select(Generation)
        .where(G.c.account_id == account_id, *_active_in(conversation_ids))
        .options(*BARE_GENERATION)
    )
    for generation in session.scalars(query.order_by(G.c.created_at, G.c.id)):
        found[generation.conversation_id].append(generation)
    return found


def active_ids(session: Session, conversation_ids: Sequence[str]) -> dict[str, list[str]]:
    """The ids of the active generations, for callers that do not need the content."""
    found: dict[str, list[str]] = defaultdict(list)
    query = select(G.c.conversation_id, G.c.id).where(*_active_in(conversation_ids))
    for conversation_id, generation_id in session.execute(query.order_by(G.c.created_at, G.c.id)):
        found[conversation_id].append(generation_id)
    return found


def _active_in(conversation_ids: Sequence[str]) -> tuple[ColumnElement[bool], ...]:
    return G.c.conversation_id.in_(conversation_ids), G.c.finished_at.is_(None)


class GenerationsPart(NamedTuple):
    """A slice of the generations of an answer."""

    message_id: str
    part: Slice


def generation_pages(
    session: Session, account_id: str, wanted: Sequence[GenerationsPart]
) -> dict[GenerationsPart, Page[Generation]]:
    """Pages of the generations of answers, oldest first, without their content."""
    message_ids: dict[Slice, list[str]] = defaultdict(list)
    for message_id, part in wanted:
        message_ids[part].append(message_id)
    pages: dict[GenerationsPart, Page[Generation]] = {}
    for part, ids in message_ids.items():
        rows: dict[str, list[Generation]] = {message_id: [] for message_id in ids}
        for generation in session.scalars(_generations(account_id, ids, part)):
            rows[generation.message_id].append(generation)
        pages |= {GenerationsPart(id, part): _page(rows[id], part) for id in ids}
    return pages


def _page(rows: list[Generation], part: Slice) -> Page[Generation]:
    more = len(rows) > part.limit
    items = rows[: part.limit]
    if part.backwards:
        items.reverse()
    # Generations are never deleted, so one exists wherever a cursor points.
    return Page(
        items,
        has_previous=(more and part.backwards) or part.after is not None,
        has_next=(more and not part.backwards) or part.before is not None,
    )


def _generations(account_id: str, message_ids: list[str], part: Slice) -> Any:
    """Selects one generation more than each page has, in the direction of reading."""
    key = (col(Generation.created_at), col(Generation.id))
    order = [column.desc() if part.backwards else column.asc() for column in key]
    number = func.row_number().over(partition_by=G.c.message_id, order_by=order).label("number")
    selected = select(G.c.id, number).where(
        G.c.message_id.in_(message_ids), G.c.account_id == account_id
    )
    if part.after is not None:
        selected = selected.where(tuple_(*key) > part.after)
    if part.before is not None:
        selected = selected.where(tuple_(*key) < part.before)
    numbered = selected.subquery()
    return (
        select(Generation)
        .join(numbered, numbered.c.id == G.c.id)
        .where(numbered.c.number <= part.limit + 1)
        .order_by(*order)
        .options(*BARE_GENERATION)
    )
