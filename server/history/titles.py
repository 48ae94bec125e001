"""Titles: which conversations need one, and setting it. A person's title is never replaced."""

from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import and_, select, text, update
from sqlmodel import Session

from server.history.changes import next_change
from server.history.search import index_title
from server.history.tables import CONVERSATIONS as C
from server.history.tables import GENERATIONS as G
from server.history.tables import MESSAGES as M
from server.history.tables import Status, now
from server.parts import joined_text

DUE_FOR = timedelta(days=1)
DUE_AFTER = timedelta(minutes=1)
"""By then, the job has ended or is lost."""

DUE_AT_ONCE = 100


class Opening(NamedTuple):
    """The beginning of a conversation, from which its title is generated."""

    account_id: str
    model: str
    question: str
    answer: str


_IS_DUE = and_(
    text("title_due"), C.c.deleted_at.is_(None)
)  # as in the partial index, so that it is used


def opening_of(session: Session, conversation_id: str) -> Opening | None:
    """The first question and answer of a conversation; None unless it needs a title now."""
    answer = M.alias()
    row = session.execute(
        select(C.c.account_id, C.c.model, M.c.parts, G.c.parts)
        .join(M, and_(M.c.conversation_id == C.c.id, M.c.parent_id.is_(None)))
        .join(answer, and_(answer.c.conversation_id == C.c.id, answer.c.parent_id == M.c.id))
        .join(G, G.c.id == answer.c.generation_id)
        .where(
            C.c.id == conversation_id, _IS_DUE, G.c.status.in_((Status.COMPLETED, Status.CANCELLED))
        )
        .order_by(M.c.position, answer.c.position)
        .limit(1)
    ).one_or_none()
    if row is None:
        return None
    account_id, model, question_parts, answer_parts = row
    return Opening(account_id, model, joined_text(question_parts), joined_text(answer_parts))


def set_title(session: Session, conversation_id: str, account_id: str, title: str | None) -> bool:
    """Sets a title; None keeps the current one.

    False when a person or another process has set one in the meantime.
    """
    due = update(C).where(C.c.id == conversation_id, C.c.account_id == account_id, _IS_DUE)
    if title is None:
        return (
            session.execute(due.values(title_due=False).returning(C.c.id)).one_or_none() is not None
        )
    titled = due.values(
        title=title, title_due=False, change=next_change(session, account_id)
    ).returning(C.c.id)
    if session.execute(titled).one_or_none() is None:
        return False
    index_title(session, account_id, conversation_id, title, replace=True)
    return True


def due_titles(session: Session) -> list[str]:
    """Some conversations whose title is overdue."""
    at = now()
    begun = (
        select(G.c.id).where(G.c.conversation_id == C.c.id, G.c.status == Status.COMPLETED).exists()
    )
    due = select(C.c.id).where(_IS_DUE, C.c.created_at.between(at - DUE_FOR, at - DUE_AFTER), begun)
    return list(session.execute(due.order_by(C.c.created_at.desc()).limit(DUE_AT_ONCE)).scalars())
