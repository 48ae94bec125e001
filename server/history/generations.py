"""Generations as readers see them: access, the snapshot, and the wish to stop."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import update
from sqlmodel import Session, col, select

from server.errors import NotFound
from server.history.changes import next_change
from server.history.tables import ACTIVE, Conversation, Generation, now
from server.history.tables import GENERATIONS as G
from server.ids import Prefix, is_id
from server.parts import Parts, joined_text


def readable_generation(session: Session, generation_id: str, account_id: str) -> Generation:
    """A generation of this account, in a conversation that is not deleted; raises NotFound."""
    if is_id(Prefix.GENERATION, generation_id):
        found = session.exec(
            select(Generation)
            .join(Conversation, col(Conversation.id) == col(Generation.conversation_id))
            .where(
                Generation.id == generation_id,
                Generation.account_id == account_id,
                col(Conversation.deleted_at).is_(None),
            )
        ).one_or_none()
        if found is not None:
            return found
    raise NotFound("generation")


def request_cancel(session: Session, generation_id: str, account_id: str) -> Generation:
    """Notes that this generation shall stop, unless it is over already; raises NotFound."""
    readable_generation(session, generation_id, account_id)
    next_change(
        session, account_id
    )  # first of all, as in `settle`: two that lock in different orders wait for each other
    session.execute(
        update(G)
        .where(G.c.id == generation_id, G.c.status.in_(ACTIVE), G.c.cancel_requested_at.is_(None))
        .values(cancel_requested_at=now())
    )
    session.expire_all()
    return session.get_one(Generation, generation_id)


def settled_generations(session: Session, generation_ids: Sequence[str]) -> list[Generation]:
    """Those of these generations that are over."""
    return list(
        session.exec(
            select(Generation).where(
                col(Generation.id).in_(generation_ids), col(Generation.finished_at).isnot(None)
            )
        )
    )


class Written(NamedTuple):
    """Content as of event `seq`."""

    parts: Parts
    seq: int


def snapshot(generation: Generation, written: Written | None = None) -> dict[str, Any]:
    """A generation as the contract shows it, with the content as of event `seq`: what is stored, or what is known to be newer."""
    parts, seq = written or (generation.parts, generation.seq)
    return {
        "id": generation.id,
        "conversation_id": generation.conversation_id,
        "question_id": generation.question_id,
        "message_id": generation.message_id,
        "model": generation.model,
        "status": generation.status,
        "attempt": generation.attempt,
        "seq": seq,
        "content": parts,
        "text": joined_text(parts),
        "finish_reason": generation.finish_reason,
        "usage": generation.usage,
        "error": generation.error,
        "context": {"messages_left_out": generation.messages_left_out},
        "created_at": rfc3339(generation.created_at),
        "started_at": rfc3339(generation.started_at),
        "first_token_at": rfc3339(generation.first_token_at),
        "finished_at": rfc3339(generation.finished_at),
    }


def rfc3339(moment: datetime | None) -> str | None:
    """A moment as it is written in every interface, e.g. `2026-11-20T12:00:00.123456Z`."""
    return (
        moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        if moment
        else None
    )
