"""Claims: what workers write about generations they own, fenced by owner and attempt."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple, cast

from sqlalchemy import (
    Boolean,
    CursorResult,
    String,
    and_,
    bindparam,
    func,
    or_,
    select,
    text,
    update,
)
from sqlmodel import Session

from server.history.changes import next_change
from server.history.search import index_message
from server.history.tables import ACTIVE, Generation, Status, now
from server.history.tables import CONVERSATIONS as C
from server.history.tables import GENERATIONS as G
from server.history.tables import MESSAGES as M
from server.parts import Parts, joined_text

IDS_AT_ONCE = 500


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


class Progress(NamedTuple):
    """What an answer came to so far: `parts` as of event `seq`."""

    parts: Parts
    seq: int
    usage: dict[str, Any] | None
    first_token_at: datetime | None


class Settled(NamedTuple):
    """A generation as it was settled, and whether its conversation waits for a title."""

    generation: Generation
    title_due: bool


class Ending(NamedTuple):
    """What an answer came to. `seq` is the number of its terminal event."""

    status: Status
    seq: int
    parts: Parts
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    first_token_at: datetime | None = None


_SEEN = and_(
    G.c.owner == bindparam("seen_owner", type_=String),
    G.c.attempt == bindparam("seen_attempt"),
    G.c.beat == bindparam("seen_beat"),
)
_CLAIM = (
    update(G)
    .where(
        G.c.id == bindparam("generation"),
        G.c.status.in_(ACTIVE),
        G.c.cancel_requested_at.isnot(None) == bindparam("to_cancel", type_=Boolean),
        or_(G.c.owner.is_(None), _SEEN),
    )
    .values(
        owner=bindparam("claimer"),
        attempt=G.c.attempt + 1,
        beat=G.c.beat + 1,
        crashes=G.c.crashes + bindparam("crashed"),
        status=Status.RUNNING,
        started_at=func.coalesce(G.c.started_at, bindparam("at", type_=G.c.started_at.type)),
    )
    .returning(*G.c)
)
_ROW = select(*G.c).where(G.c.id == bindparam("generation"))


def claim(
    session: Session,
    generation_id: str,
    owner: str,
    *,
    seen: Seen | None = None,
    to_cancel: bool = False,
) -> Generation | None:
    """Makes `owner` the owner, with the next attempt; None if it has another owner or has ended.

    Without `seen`, only an unowned row can be claimed; with it also that row of a dead owner, which
    counts as a crash.
    An attempt is claimed once, even by its owner: a claim whose reply was lost is taken over.
    A row whose cancellation was requested is claimed only `to_cancel`, that is to settle it.
    """
    seen = seen or Seen(None, 0, 0)
    values = {
        "generation": generation_id,
        "to_cancel": to_cancel,
        "seen_owner": seen.owner,
        "seen_attempt": seen.attempt,
        "seen_beat": seen.beat,
        "claimer": owner,
        "crashed": 1 if seen.owner else 0,
        "at": now(),
    }
    return cast("Generation | None", session.execute(_CLAIM, values).one_or_none())


_RUNNING = text("generation.status = 'running'")
_QUEUED = text("generation.status = 'queued'")
_CANCELLING = text("generation.cancel_requested_at IS NOT NULL AND generation.finished_at IS NULL")
_UNSEALED = text("generation.finished_at IS NOT NULL AND NOT generation.sealed")
"""In the words of the partial indexes: with a bound value, no database would use them."""

RUNNING_ROWS_MAX = 20_000
"""How many running answers a sweep watches: more than the slots of any fleet."""

WAITING_ROWS_MAX = 1_000
"""How many queued, cancelled and ended answers a sweep reads, the oldest of each."""

_BEAT = (
    update(G)
    .where(G.c.owner == bindparam("beater"), _RUNNING)
    .values(beat=G.c.beat + 1)
    .returning(G.c.id, G.c.attempt, G.c.cancel_requested_at)
)


def beat(session: Session, owner: str) -> list[Beat]:
    """Raises the beat of everything `owner` owns; it no longer owns what is not returned."""
    return [
        Beat(id, attempt, requested is not None)
        for id, attempt, requested in session.execute(_BEAT, {"beater": owner})
    ]


_TOUCH = update(G).where(G.c.owner == bindparam("toucher"), _RUNNING).values(beat=G.c.beat)


def touch(session: Session, owner: str) -> None:
    """Writes what `owner` owns as it is: succeeds only where the database takes a beat."""
    session.execute(_TOUCH, {"toucher": owner})


_OPEN = select(G.c.id, G.c.status, G.c.owner, G.c.attempt, G.c.beat, G.c.cancel_requested_at)
_OPEN_RUNNING = _OPEN.where(_RUNNING).order_by(G.c.owner).limit(RUNNING_ROWS_MAX)
_OPEN_QUEUED, _OPEN_CANCELLING, _OPEN_UNSEALED = (
    _OPEN.where(which).order_by(G.c.id).limit(WAITING_ROWS_MAX)
    for which in (_QUEUED, _CANCELLING, _UNSEALED)
)


def open_rows(session: Session, *, cancelled_only: bool = False) -> list[OpenRow]:
    """The generations a sweep looks at, each once; or only those whose cancellation was requested.

    All that run, and the oldest of those that are queued, that were cancelled, and that ended
    without their log being sealed: what lies behind comes to the front when these are done.
    """
    which = (
        [_OPEN_CANCELLING]
        if cancelled_only
        else [_OPEN_RUNNING, _OPEN_QUEUED, _OPEN_CANCELLING, _OPEN_UNSEALED]
    )
    return list(
        {
            id: OpenRow(id, status, Seen(owner, attempt, beat), cancel is not None)
            for statement in which
            for id, status, owner, attempt, beat, cancel in session.execute(statement)
        }.values()
    )


def count_open(session: Session) -> dict[str, int]:
    """How many generations wait, and how many are being written."""
    counted = session.execute(
        select(G.c.status, func.count()).where(G.c.finished_at.is_(None)).group_by(G.c.status)
    )
    return {"queued": 0, "running": 0} | {str(status): count for status, count in counted}


def checkpoint(session: Session, fence: Fence, progress: Progress) -> bool:
    """Stores what is written so far; false when the fence is old."""
    return _write(session, fence, **_values(progress))


def hand_over(session: Session, fence: Fence, progress: Progress) -> bool:
    """Gives up a generation, claimable at once; `progress.seq` is the last event that was written."""
    return _write(session, fence, **_values(progress), owner=None, handed_over=fence.attempt)


def give_back(session: Session, fence: Fence) -> bool:
    """Gives a claim up that came to nothing; the next one may try at once."""
    return _write(session, fence, owner=None)


def release_dead(session: Session, owner: str) -> list[str]:
    """Frees what a dead process owned, and counts a crash for each; their ids."""
    owned = update(G).where(G.c.owner == owner, _RUNNING)
    return list(
        session.execute(
            owned.values(owner=None, crashes=G.c.crashes + 1).returning(G.c.id)
        ).scalars()
    )


_FENCED = update(G).where(
    G.c.id == bindparam("generation"),
    G.c.owner == bindparam("fenced_owner"),
    G.c.attempt == bindparam("fenced_attempt"),
    G.c.status == Status.RUNNING,
)
_SETTLE = _FENCED.values(
    **{
        name: bindparam(f"new_{name}", type_=G.c[name].type)
        for name in ("status", "seq", "parts", "finish_reason", "usage", "error", "finished_at")
    },
    first_token_at=func.coalesce(
        G.c.first_token_at, bindparam("new_first_token_at", type_=G.c.first_token_at.type)
    ),
).returning(*G.c)
_STAMP_MESSAGE = update(M).where(M.c.id == bindparam("message")).values(change=bindparam("stamp"))
_STAMP_CONVERSATION = (
    update(C)
    .where(C.c.id == bindparam("conversation"))
    .values(change=bindparam("stamp"), updated_at=bindparam("at"))
    .returning(C.c.title_due)
)


def settle(session: Session, fence: Fence, account_id: str, ending: Ending) -> Settled | None:
    """Ends a generation once; the row if this fence settled it, now or by a call whose reply was lost."""
    change, at = next_change(session, account_id), now()
    values = {
        f"new_{name}": value for name, value in (ending._asdict() | {"finished_at": at}).items()
    }
    settled = session.execute(_SETTLE, _fenced(fence) | values).one_or_none()
    if settled is None:
        row = session.execute(_ROW, {"generation": fence.generation_id}).one_or_none()
        ours = (
            row is not None
            and row.status.terminal
            and (row.owner, row.attempt) == (fence.owner, fence.attempt)
        )
        return Settled(cast("Generation", row), title_due=False) if ours else None
    if settled.account_id != account_id:  # a guest signed in meanwhile
        change = next_change(session, settled.account_id)
    session.execute(_STAMP_MESSAGE, {"message": settled.message_id, "stamp": change})
    stamp = {"conversation": settled.conversation_id, "stamp": change, "at": at}
    title_due = session.execute(_STAMP_CONVERSATION, stamp).scalar_one()
    said = joined_text(ending.parts)
    index_message(
        session,
        settled.account_id,
        settled.conversation_id,
        settled.message_id,
        said,
        again=settled.previous_id is not None,
    )
    return Settled(cast("Generation", settled), title_due)


def mark_sealed(session: Session, generation_ids: Sequence[str]) -> None:
    """Notes that these logs carry their end, or are gone: nobody has to look at them again."""
    for start in range(0, len(generation_ids), IDS_AT_ONCE):
        session.execute(
            update(G)
            .where(G.c.id.in_(sorted(generation_ids)[start : start + IDS_AT_ONCE]))
            .values(sealed=True)
        )


def content_of(session: Session, generation_id: str) -> Parts:
    """The content of a generation."""
    parts: Parts = session.execute(select(G.c.parts).where(G.c.id == generation_id)).scalar_one()
    return parts


def note_left_out(session: Session, fence: Fence, messages: int) -> bool:
    """Notes how many messages of the branch did not fit the model; false when the fence is old."""
    return _write(session, fence, messages_left_out=messages)


def _write(session: Session, fence: Fence, **values: Any) -> bool:
    written = session.execute(_FENCED.values(**values), _fenced(fence))
    return cast("CursorResult[Any]", written).rowcount == 1


def _values(progress: Progress) -> dict[str, Any]:
    at = progress.first_token_at
    first = func.coalesce(G.c.first_token_at, at) if at is not None else G.c.first_token_at
    return {
        "parts": progress.parts,
        "seq": progress.seq,
        "usage": progress.usage,
        "first_token_at": first,
    }


def _fenced(fence: Fence) -> dict[str, Any]:
    return {
        "generation": fence.generation_id,
        "fenced_owner": fence.owner,
        "fenced_attempt": fence.attempt,
    }
