"""Claims: what workers write about generations they own, fenced by owner and attempt."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple, cast

from sqlalchemy import (
    Boolean,
    CursorResult,
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
from server.history.tables import WORKERS as W
from server.history.workers import CLAIMER_BEAT, OWNER_BEAT, USED_BEATS, declare_dead
from server.parts import Parts, joined_text

IDS_AT_ONCE = 500


class Fence(NamedTuple):
    """The owner and attempt that a write requires; it fails once they have changed."""

    generation_id: str
    owner: str
    attempt: int


class Seen(NamedTuple):
    """The ownership of a row as a sweep read it. `beat` rises while the owner is alive."""

    owner: str | None
    attempt: int
    beat: int


class OpenRow(NamedTuple):
    """A row that the sweep examines: not settled, or settled but not sealed."""

    id: str
    status: Status
    seen: Seen
    cancel_requested: bool


class OwnedRow(NamedTuple):
    """A row that a worker owns."""

    id: str
    attempt: int
    cancel_requested: bool


class Progress(NamedTuple):
    """The result of an answer so far: `parts` as of event `seq`."""

    parts: Parts
    seq: int
    usage: dict[str, Any] | None
    first_token_at: datetime | None


class Settled(NamedTuple):
    """A settled generation, and whether its conversation needs a title."""

    generation: Generation
    title_due: bool


class Ending(NamedTuple):
    """The final result of an answer. `seq` is the number of its terminal event."""

    status: Status
    seq: int
    parts: Parts
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    first_token_at: datetime | None = None


_CLAIM = (
    update(G)
    .where(
        G.c.id == bindparam("generation"),
        G.c.status.in_(ACTIVE),
        G.c.cancel_requested_at.isnot(None) == bindparam("to_cancel", type_=Boolean),
        G.c.owner.is_(None),
    )
    .values(
        owner=bindparam("claimer"),
        attempt=G.c.attempt + 1,
        claimed_beat=CLAIMER_BEAT,
        status=Status.RUNNING,
        started_at=func.coalesce(G.c.started_at, bindparam("at", type_=G.c.started_at.type)),
    )
    .returning(*G.c)
)
_ROW = select(*G.c).where(G.c.id == bindparam("generation"))


def claim(
    session: Session, generation_id: str, owner: str, *, to_cancel: bool = False
) -> Generation | None:
    """Makes `owner` the owner, with the next attempt; None if it has an owner or has ended.

    Every claim is a new attempt: if the reply to one was lost, even its owner has to release it and
    claim again. A row whose cancellation was requested can only be claimed with `to_cancel`, to
    settle it.
    """
    values = {
        "generation": generation_id,
        "to_cancel": to_cancel,
        "claimer": owner,
        "at": now(),
    }
    return cast("Generation | None", session.execute(_CLAIM, values).one_or_none())


_RUNNING = text("generation.status = 'running'")
_QUEUED = text("generation.status = 'queued'")
_CANCELLING = text("generation.cancel_requested_at IS NOT NULL AND generation.finished_at IS NULL")
_UNSEALED = text("generation.finished_at IS NOT NULL AND NOT generation.sealed")
"""Written as in the partial indexes: with bound values, no database would use these."""

OPEN_ROWS_MAX = 1_000
"""How many answers of each kind a sweep reads, the oldest first."""

_OWNED = select(G.c.id, G.c.attempt, G.c.cancel_requested_at).where(
    G.c.owner == bindparam("owner"), _RUNNING
)


def owned_rows(session: Session, owner: str) -> list[OwnedRow]:
    """Everything that `owner` owns."""
    return [
        OwnedRow(id, attempt, requested is not None)
        for id, attempt, requested in session.execute(_OWNED, {"owner": owner})
    ]


_OPEN = select(G.c.id, G.c.status, G.c.owner, G.c.attempt, OWNER_BEAT, G.c.cancel_requested_at)
_REGISTERED = select(W.c.name).where(W.c.name == G.c.owner).correlate(G).exists()
_OPEN_OWNERLESS, _OPEN_STRAY, _OPEN_QUEUED, _OPEN_CANCELLING, _OPEN_UNSEALED = (
    _OPEN.where(*which).order_by(order).limit(OPEN_ROWS_MAX)
    for order, *which in (
        (G.c.owner, _RUNNING, G.c.owner.is_(None)),
        (G.c.owner, _RUNNING, G.c.owner.isnot(None), ~_REGISTERED),
        (G.c.id, _QUEUED),
        (G.c.id, _CANCELLING),
        (G.c.id, _UNSEALED),
    )
)


def open_rows(session: Session, *, cancelled_only: bool = False) -> list[OpenRow]:
    """The generations that a sweep examines, each once; with `cancelled_only`, only cancelled ones.

    These are the oldest that run without an owner, or with one that is not a registered worker (a
    web process that settles, a worker of an earlier version), that are queued, cancelled, or ended
    but not sealed. Those of registered workers are not read, see `workers`.
    """
    which = (
        [_OPEN_CANCELLING]
        if cancelled_only
        else [_OPEN_OWNERLESS, _OPEN_STRAY, _OPEN_QUEUED, _OPEN_CANCELLING, _OPEN_UNSEALED]
    )
    return list(
        {
            id: OpenRow(id, status, Seen(owner, attempt, beat), cancel is not None)
            for statement in which
            for id, status, owner, attempt, beat, cancel in session.execute(statement)
        }.values()
    )


def count_open(session: Session) -> dict[str, int]:
    """How many generations are queued, and how many are running."""
    counted = session.execute(
        select(G.c.status, func.count()).where(G.c.finished_at.is_(None)).group_by(G.c.status)
    )
    return {"queued": 0, "running": 0} | {str(status): count for status, count in counted}


def checkpoint(session: Session, fence: Fence, progress: Progress) -> bool:
    """Stores the result so far; false when the fence no longer holds."""
    return _write(session, fence, **_values(progress))


def hand_over(session: Session, fence: Fence, progress: Progress) -> bool:
    """Releases a generation with its result so far; `progress.seq` is the last written event."""
    released = {"owner": None, "beat": G.c.beat + USED_BEATS, "handed_over": fence.attempt}
    return _write(session, fence, **_values(progress), **released)


def give_back(session: Session, fence: Fence) -> bool:
    """Releases a claim without a result; another claim may follow at once."""
    return _write(session, fence, owner=None, beat=G.c.beat + USED_BEATS)


_RELEASE_ROW = (
    update(G)
    .where(
        G.c.id == bindparam("generation"),
        G.c.owner == bindparam("seen_owner"),
        G.c.attempt == bindparam("seen_attempt"),
        _RUNNING,
        or_(
            G.c.owner == bindparam("releaser"),
            and_(~_REGISTERED, G.c.beat == bindparam("seen_beat")),
        ),
    )
    .values(owner=None, crashes=G.c.crashes + 1, beat=G.c.beat + USED_BEATS)
)


def release_row(session: Session, generation_id: str, seen: Seen, releaser: str) -> None:
    """Releases a row that its owner does not write, with a crash, unless the row has changed.

    The owner is dead, or the releaser itself, after a lost reply to its claim. If it is a registered
    worker, everything that it owns is released.
    """
    owner, attempt, beat = seen
    if owner is None:
        return
    if owner != releaser and declare_dead(session, owner, beat):
        return
    values = {"seen_owner": owner, "seen_attempt": attempt, "seen_beat": beat}
    session.execute(_RELEASE_ROW, values | {"generation": generation_id, "releaser": releaser})


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
_RESTORE_MESSAGE = _STAMP_MESSAGE.values(generation_id=bindparam("shown"))
_STAMP_CONVERSATION = (
    update(C)
    .where(C.c.id == bindparam("conversation"))
    .values(change=bindparam("stamp"), updated_at=bindparam("at"))
    .returning(C.c.title_due)
)


def settle(session: Session, fence: Fence, account_id: str, ending: Ending) -> Settled | None:
    """Ends a generation; the row if this fence settled it, now or by a call with a lost reply.

    If it was to continue an answer and failed with nothing new, its message shows that answer again.
    """
    change, at = next_change(session, account_id), now()
    values = {
        f"new_{name}": value for name, value in (ending._asdict() | {"finished_at": at}).items()
    }
    ended = session.execute(_SETTLE, _fenced(fence) | values).one_or_none()
    if ended is None:
        row = session.execute(_ROW, {"generation": fence.generation_id}).one_or_none()
        is_ours = (
            row is not None
            and row.status.terminal
            and (row.owner, row.attempt) == (fence.owner, fence.attempt)
        )
        return Settled(cast("Generation", row), title_due=False) if is_ours else None
    settled = cast("Generation", ended)
    if settled.account_id != account_id:  # a guest has signed in since
        change = next_change(session, settled.account_id)
    shown = settled.previous_id if _adds_nothing(session, settled) else None
    message = {"message": settled.message_id, "stamp": change}
    session.execute(
        _RESTORE_MESSAGE if shown else _STAMP_MESSAGE, message | ({"shown": shown} if shown else {})
    )
    stamp = {"conversation": settled.conversation_id, "stamp": change, "at": at}
    title_due = session.execute(_STAMP_CONVERSATION, stamp).scalar_one()
    if shown is None:
        index_message(
            session,
            settled.account_id,
            settled.conversation_id,
            settled.message_id,
            joined_text(ending.parts),
            replace=settled.previous_id is not None,
        )
    return Settled(settled, title_due)


def _adds_nothing(session: Session, ended: Generation) -> bool:
    """Whether a continuation failed or was stopped before it wrote more than thoughts."""
    if ended.previous_id is None or ended.status is Status.COMPLETED:
        return False
    before = _without_thoughts(content_of(session, ended.previous_id))
    return _without_thoughts(ended.parts) in ([], before)


def _without_thoughts(parts: Parts) -> Parts:
    return [part for part in parts if part["type"] != "reasoning"]


def mark_sealed(session: Session, generation_ids: Sequence[str]) -> None:
    """Records that these logs have their terminal event or are gone: the sweep skips them."""
    for start in range(0, len(generation_ids), IDS_AT_ONCE):
        session.execute(
            update(G)
            .where(G.c.id.in_(sorted(generation_ids)[start : start + IDS_AT_ONCE]))
            .values(sealed=True)
        )


def content_of(session: Session, generation_id: str) -> Parts:
    parts: Parts = session.execute(select(G.c.parts).where(G.c.id == generation_id)).scalar_one()
    return parts


def note_left_out(session: Session, fence: Fence, messages: int) -> bool:
    """Records how many messages of the branch did not fit the model; false if the fence is old."""
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
