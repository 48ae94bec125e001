"""Several at a time: what belongs to each of some rows, in one statement for all of them.

The ids come from rows that the account may read; the account is asked for again all the same.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, func, select, tuple_, union_all
from sqlmodel import Session, col

from server.history.keyset import Page, Slice
from server.history.messages import Said
from server.history.tables import CONVERSATIONS as C
from server.history.tables import GENERATIONS as G
from server.history.tables import MESSAGES as M
from server.history.tables import Conversation, Generation, Message

SIBLINGS_MAX = 100


class Siblings(NamedTuple):
    """The messages of a conversation that have this parent."""

    conversation_id: str
    parent_id: str | None


class Generations(NamedTuple):
    """A part of the generations of an answer."""

    message_id: str
    part: Slice


def _owned_by(account_id: str) -> ColumnElement[bool]:
    """Whether a conversation is the account's, asked so that no index answers: the ids find the rows, and SQLite would read the account."""
    return func.coalesce(C.c.account_id, "") == account_id


def conversations_by_id(
    session: Session, account_id: str, ids: Sequence[str]
) -> dict[str, Conversation]:
    """Those of these conversations that the account may read."""
    found = session.scalars(
        select(Conversation).where(C.c.id.in_(ids), _owned_by(account_id), C.c.deleted_at.is_(None))
    )
    return {conversation.id: conversation for conversation in found}


_SAID = (
    select(Message, Generation)
    .join(Conversation, C.c.id == M.c.conversation_id)
    .outerjoin(Generation, G.c.id == M.c.generation_id)
)


def messages_by_id(session: Session, account_id: str, ids: Sequence[str]) -> dict[str, Said]:
    """Those of these messages that the account may read."""
    found = session.execute(
        _SAID.where(M.c.id.in_(ids), _owned_by(account_id), C.c.deleted_at.is_(None))
    )
    return {message.id: Said(message, generation) for message, generation in found}


def last_messages(
    session: Session, account_id: str, conversation_ids: Sequence[str]
) -> dict[str, Said]:
    """For each conversation the message that was last written to, on whichever branch; of a question and its answer, the answer."""
    newest = (
        select(M.c.id)
        .where(M.c.conversation_id == C.c.id)
        .order_by(M.c.change.desc(), M.c.role)
        .limit(1)
        .correlate(C)
        .scalar_subquery()
    )
    found = session.execute(
        select(Message, Generation)
        .select_from(Conversation)
        .join(Message, M.c.id == newest)
        .outerjoin(Generation, G.c.id == M.c.generation_id)
        .where(C.c.id.in_(conversation_ids), _owned_by(account_id))
    )
    return {message.conversation_id: Said(message, generation) for message, generation in found}


def active_generations(
    session: Session, account_id: str, conversation_ids: Sequence[str]
) -> dict[str, list[Generation]]:
    """The generations of each conversation that are not over, in the order they were asked for."""
    found: dict[str, list[Generation]] = defaultdict(list)
    active = select(Generation).where(
        G.c.account_id == account_id,
        G.c.finished_at.is_(None),
        G.c.conversation_id.in_(conversation_ids),
    )
    for generation in session.scalars(active.order_by(G.c.created_at, G.c.id)):
        found[generation.conversation_id].append(generation)
    return found


def siblings_of(
    session: Session, account_id: str, wanted: Sequence[Siblings]
) -> dict[Siblings, list[Said]]:
    """The messages that share a parent, in order; at most 100 of each."""
    children = [each for each in wanted if each.parent_id is not None]
    within, under = (
        {each.conversation_id for each in children},
        [each.parent_id for each in children],
    )
    roots = [each.conversation_id for each in wanted if each.parent_id is None]
    place = (
        func.row_number()
        .over(partition_by=(M.c.conversation_id, M.c.parent_id), order_by=M.c.position)
        .label("place")
    )
    of_account = (
        select(M.c.id, place).join(C, C.c.id == M.c.conversation_id).where(_owned_by(account_id))
    )
    placed = union_all(
        of_account.where(M.c.conversation_id.in_(within), M.c.parent_id.in_(under)),
        of_account.where(M.c.conversation_id.in_(roots), M.c.parent_id.is_(None)),
    ).subquery()
    found: dict[Siblings, list[Said]] = defaultdict(list)
    said = (
        select(Message, Generation)
        .join(placed, placed.c.id == M.c.id)
        .outerjoin(Generation, G.c.id == M.c.generation_id)
        .where(placed.c.place <= SIBLINGS_MAX)
        .order_by(M.c.position)
    )
    for message, generation in session.execute(said):
        found[Siblings(message.conversation_id, message.parent_id)].append(
            Said(message, generation)
        )
    return found


def generations_of(
    session: Session, account_id: str, wanted: Sequence[Generations]
) -> dict[Generations, Page[Generation]]:
    """Pages of the generations of answers, the first one first."""
    together: dict[Slice, list[str]] = defaultdict(list)
    for message_id, part in wanted:
        together[part].append(message_id)
    found = {}
    for part, message_ids in together.items():
        rows: dict[str, list[Generation]] = {message_id: [] for message_id in message_ids}
        for generation in session.scalars(_generations(account_id, message_ids, part)):
            rows[generation.message_id].append(generation)
        for message_id, generations in rows.items():
            more = len(generations) > part.limit
            if part.backwards:
                generations.reverse()
            items = generations[-part.limit :] if part.backwards else generations[: part.limit]
            before_it, behind_it = (
                part.after is not None,
                part.before is not None,
            )  # generations never go away
            page = Page(
                items,
                (more and part.backwards) or before_it,
                (more and not part.backwards) or behind_it,
            )
            found[Generations(message_id, part)] = page
    return found


def _generations(account_id: str, message_ids: list[str], part: Slice) -> Any:
    """One more of each than the page has, in the order they are read."""
    key = (col(Generation.created_at), col(Generation.id))
    order = [column.desc() if part.backwards else column.asc() for column in key]
    place = func.row_number().over(partition_by=G.c.message_id, order_by=order).label("place")
    placed = select(G.c.id, place).where(
        G.c.message_id.in_(message_ids), G.c.account_id == account_id
    )
    if part.after is not None:
        placed = placed.where(tuple_(*key) > part.after)
    if part.before is not None:
        placed = placed.where(tuple_(*key) < part.before)
    numbered = placed.subquery()
    return (
        select(Generation)
        .join(numbered, numbered.c.id == G.c.id)
        .where(numbered.c.place <= part.limit + 1)
        .order_by(*order)
    )
