"""Claims: what workers write about the generations they own. Every write names the owner and the attempt, and misses when they are old."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import CursorResult, and_, func, not_, or_, select, update
from sqlmodel import Session, col

from server.history.changes import next_change
from server.history.tables import ACTIVE, Conversation, Generation, Message, Status, now
from server.parts import Parts

G = Generation


class Fence(NamedTuple):
    """Who believes to own what: the guard of every write."""

    generation_id: str
    owner: str
    attempt: int


class Seen(NamedTuple):
    """What a sweeper read of a row; its claim succeeds only while nothing of it has changed."""

    owner: str | None
    attempt: int
    beat: int


class OpenRow(NamedTuple):
    """A row the sweep looks at: not settled, or settled without its log being sealed."""

    id: str
    status: Status
    seen: Seen
    cancel_requested: bool


class Beat(NamedTuple):
    """An owned row as of this sign of life."""

    id: str
    attempt: int
    cancel_requested: bool


class Ending(NamedTuple):
    """What an answer came to. `seq` is the number of its terminal event."""

    status: Status
    seq: int
    parts: Parts
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    first_token_at: datetime | None = None


def claim(session: Session, generation_id: str, owner: str, *, seen: Seen | None = None, to_cancel: bool = False) -> Generation | None:
    """Makes `owner` the owner of a generation with the next attempt; None when it is somebody's, or over.

    Without `seen` only an unowned row can be claimed; with it also the row of the dead owner that was seen, which counts as a crash.
    A row whose cancellation was requested is claimed only `to_cancel`, that is to settle it.
    """
    free = col(G.owner).is_(None)
    if seen is not None and seen.owner is not None:
        free = or_(free, and_(col(G.owner) == seen.owner, col(G.attempt) == seen.attempt, col(G.beat) == seen.beat))
    cancelled = col(G.cancel_requested_at).isnot(None) if to_cancel else col(G.cancel_requested_at).is_(None)
    taken = session.execute(
        update(G)
        .where(col(G.id) == generation_id, col(G.status).in_(ACTIVE), cancelled, free)
        .values(
            owner=owner,
            attempt=col(G.attempt) + 1,
            beat=col(G.beat) + 1,
            crashes=col(G.crashes) + (1 if seen and seen.owner else 0),
            status=Status.RUNNING,
            started_at=func.coalesce(col(G.started_at), now()),
        )
        .returning(G)
        .execution_options(synchronize_session=False)
    ).scalar_one_or_none()
    if taken is not None:
        return taken
    mine = session.get(G, generation_id)
    if mine is not None and mine.owner == owner and mine.status is Status.RUNNING and seen is None:
        return mine  # an earlier COMMIT of this very claim went through, and its reply was lost
    return None


def beat(session: Session, owner: str) -> list[Beat]:
    """One sign of life for everything `owner` owns; what is missing from the answer is not its own any more."""
    rows = session.execute(
        update(G)
        .where(col(G.owner) == owner, col(G.status) == Status.RUNNING)
        .values(beat=col(G.beat) + 1)
        .returning(col(G.id), col(G.attempt), col(G.cancel_requested_at))
    )
    return [Beat(id, attempt, requested is not None) for id, attempt, requested in rows]


def open_rows(session: Session, *, cancelled_only: bool = False) -> list[OpenRow]:
    """Every generation that is not over and sealed, or those of them whose cancellation was requested."""
    columns = (G.id, G.status, G.owner, G.attempt, G.beat, G.cancel_requested_at)
    query = select(*map(col, columns)).where(not_(col(G.sealed)))
    if cancelled_only:
        query = query.where(col(G.cancel_requested_at).isnot(None))
    rows = session.execute(query)
    return [OpenRow(id, Status(s), Seen(owner, attempt, beat), bool(cancel)) for id, s, owner, attempt, beat, cancel in rows]


def count_open(session: Session) -> dict[str, int]:
    """How many generations wait, and how many are being written."""
    counted = select(col(G.status), func.count()).where(col(G.finished_at).is_(None)).group_by(col(G.status))
    return {"queued": 0, "running": 0} | {str(status): count for status, count in session.execute(counted)}


def checkpoint(session: Session, fence: Fence, parts: Parts, seq: int, first_token_at: datetime | None) -> bool:
    """Stores the content as of event `seq`; false when the fence is old."""
    return _write(session, fence, parts=parts, seq=seq, first_token_at=first_token_at)


def hand_over(session: Session, fence: Fence, parts: Parts, seq: int, first_token_at: datetime | None) -> bool:
    """Gives a generation up on purpose, claimable at once; `seq` is the last event that was written."""
    return _write(session, fence, parts=parts, seq=seq, first_token_at=first_token_at, owner=None, handed_over=fence.attempt)


def give_back(session: Session, fence: Fence) -> bool:
    """Gives a claim up that came to nothing; the next one may try at once."""
    return _write(session, fence, owner=None)


def release_dead(session: Session, owner: str) -> list[str]:
    """Frees what a process owned that is known to be dead, counting a crash for each; the ids of what it freed."""
    freed = update(G).where(col(G.owner) == owner, col(G.status) == Status.RUNNING).values(owner=None, crashes=col(G.crashes) + 1)
    return list(session.execute(freed.returning(col(G.id))).scalars())


def settle(session: Session, fence: Fence, ending: Ending) -> Generation | None:
    """Ends a generation, once. The row as it is settled by this fence, also by an earlier call whose reply was lost; else None."""
    row = session.get(G, fence.generation_id)
    if row is None or row.owner != fence.owner or row.attempt != fence.attempt:
        return None
    change = next_change(session, row.account_id)
    finished_at = now()
    values = {**ending._asdict(), "finished_at": finished_at, "first_token_at": row.first_token_at or ending.first_token_at}
    if not _write(session, fence, **values):
        settled = session.get(G, fence.generation_id, populate_existing=True)
        return settled if settled is not None and settled.status.terminal and settled.attempt == fence.attempt else None
    for name, value in values.items():
        setattr(row, name, value)
    session.execute(update(Message).where(col(Message.id) == row.message_id).values(change=change))
    session.execute(update(Conversation).where(col(Conversation.id) == row.conversation_id).values(change=change, updated_at=finished_at))
    return row


def mark_sealed(session: Session, generation_ids: Sequence[str]) -> None:
    """Notes that these logs carry their end, or are gone: nobody has to look at them again."""
    session.execute(update(G).where(col(G.id).in_(generation_ids)).values(sealed=True))


def _write(session: Session, fence: Fence, **values: Any) -> bool:
    written = session.execute(
        update(G)
        .where(
            col(G.id) == fence.generation_id,
            col(G.owner) == fence.owner,
            col(G.attempt) == fence.attempt,
            col(G.status) == Status.RUNNING,
        )
        .values(**values)
        .execution_options(synchronize_session=False)
    )
    assert isinstance(written, CursorResult)
    return written.rowcount == 1
