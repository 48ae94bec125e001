"""Worker processes in SQL: their signs of life, and the release of what dead ones owned."""

from datetime import timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import CursorResult, bindparam, case, delete, func, insert, select, text, update
from sqlmodel import Session

from server.history.tables import GENERATIONS as G
from server.history.tables import WORKERS as W
from server.history.tables import now

EARLIER_VERSION: Final = "earlier-version"
"""A row that the migration from revision 8 left: workers of that version may still be running."""

EARLIER_VERSION_RUNS: Final = timedelta(hours=1)


class Life(NamedTuple):
    """A registered worker. It is alive if `beat` rises within `lease_s`, by the reader's clock."""

    name: str
    beat: int
    lease_s: float


_RUNNING = text("generation.status = 'running'")
_NAME = W.c.name == bindparam("worker")
_BEAT = update(W).where(_NAME).values(beat=bindparam("count"))
_LIVES = select(W.c.name, W.c.beat, W.c.lease_s)
_DECLARE_DEAD = delete(W).where(_NAME, W.c.beat == bindparam("seen"))
_REMOVE = delete(W).where(_NAME).returning(W.c.beat)
_LEAVE = delete(W).where(
    _NAME,
    ~select(G.c.id).where(G.c.owner == bindparam("worker"), _RUNNING).correlate(None).exists(),
)
_USED: Any = bindparam("until") - G.c.claimed_beat
_RELEASE = (
    update(G)
    .where(G.c.owner == bindparam("worker"), _RUNNING)
    .values(
        owner=None,
        crashes=G.c.crashes + 1,
        beat=G.c.beat + case((_USED > 0, _USED), else_=0),
    )
    .returning(G.c.id)
)
_BEAT_ROWS = update(G).where(G.c.owner == bindparam("worker"), _RUNNING).values(beat=G.c.beat + 1)


def register(session: Session, name: str, beat: int, lease_s: float) -> None:
    """Registers a worker, which then has to `beat` within `lease_s`."""
    session.execute(insert(W).values(name=name, beat=beat, lease_s=lease_s, created_at=now()))


def beat(session: Session, name: str, beat: int) -> list[Life] | None:
    """Sets the beat of a worker; all workers. None if it is not registered (any more).

    The beat is the milliseconds that the worker has run by its monotonic clock.
    """
    if not _rows(session, _BEAT, {"worker": name, "count": beat}):
        return None
    return lives(session)


def lives(session: Session) -> list[Life]:
    """All registered workers, dead ones included until somebody declares them dead."""
    return [Life(*row) for row in session.execute(_LIVES)]


def leave(session: Session, name: str) -> None:
    """Unregisters a worker, unless it still owns something, which others will find."""
    session.execute(_LEAVE, {"worker": name})


def declare_dead(session: Session, name: str, seen: int) -> list[str]:
    """Releases what a worker owns if its beat is still `seen`, and counts a crash for each; their ids.

    The deletion of its row comes first: a beat at the same time waits for it, and fails.
    """
    if not _rows(session, _DECLARE_DEAD, {"worker": name, "seen": seen}):
        return []
    return list(session.execute(_RELEASE, {"worker": name, "until": seen}).scalars())


def release_dead(session: Session, name: str) -> list[str]:
    """The same for a process that its supervisor knows to be dead."""
    until = session.execute(_REMOVE, {"worker": name}).scalar()
    return list(session.execute(_RELEASE, {"worker": name, "until": until or 0}).scalars())


def beat_rows(session: Session, name: str) -> None:
    """Raises the beat of what a worker owns, at which workers of revision 8 look."""
    session.execute(_BEAT_ROWS, {"worker": name})


def forget_earlier_version(session: Session) -> None:
    """Once nothing of the version before the migration can be running."""
    old = W.c.created_at < now() - EARLIER_VERSION_RUNS
    session.execute(delete(W).where(W.c.name == EARLIER_VERSION, old))


def _rows(session: Session, statement: Any, values: dict[str, Any]) -> int:
    changed: CursorResult[Any] = session.execute(statement, values)  # type: ignore[assignment]
    return changed.rowcount


USED_BEATS: Final = func.coalesce(
    select(W.c.beat - G.c.claimed_beat)
    .where(W.c.name == G.c.owner, W.c.beat > G.c.claimed_beat)
    .correlate(G)
    .scalar_subquery(),
    0,
)
"""How long the owner of a generation has owned it, in milliseconds, as of its last beat."""

OWNER_BEAT: Final = func.coalesce(
    select(W.c.beat).where(W.c.name == G.c.owner).correlate(G).scalar_subquery(), G.c.beat
)
"""What rises while the owner of a generation is alive."""

CLAIMER_BEAT: Final = func.coalesce(
    select(W.c.beat).where(W.c.name == bindparam("claimer")).scalar_subquery(), 0
)
