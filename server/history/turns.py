"""Turns: the rows of a question, its answer and the generation that will write the answer.

These statements run for every message, so they are built once: building one costs as much as
running it (docs/decisions/0007).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, cast

from sqlalchemy import bindparam, func, insert, select, update
from sqlmodel import Session

from server.errors import Invalid
from server.history.changes import next_change
from server.history.search import index_message, index_title
from server.history.tables import (
    BARE_CONVERSATION,
    BARE_GENERATION,
    BARE_MESSAGE,
    Conversation,
    Generation,
    Idempotency,
    Message,
    Role,
    Status,
    now,
)
from server.history.tables import CONVERSATIONS as C
from server.history.tables import GENERATIONS as G
from server.history.tables import IDEMPOTENCIES as I
from server.history.tables import MESSAGES as M
from server.ids import Prefix, new_id
from server.parts import Parts, joined_text

TITLE_MAX_CHARS = 60
KEY_KEPT = timedelta(hours=24)


class Stamp(NamedTuple):
    """The account, change number and time of all rows that one turn writes."""

    account_id: str
    change: int
    at: datetime


class Target(NamedTuple):
    """The conversation of a turn, and its default model and system prompt."""

    id: str
    model: str
    system_prompt: str | None

    @classmethod
    def of(cls, conversation: Conversation) -> "Target":
        return cls(conversation.id, conversation.model, conversation.system_prompt)


@dataclass(frozen=True)
class IdempotencyKey:
    """An Idempotency-Key, the operation it is used for, and the digest of the request."""

    operation: str
    key: str
    body_sha256: str


_ACTIVE = (
    select(func.count())
    .select_from(G)
    .where(G.c.account_id == bindparam("account"), G.c.finished_at.is_(None))
)
_NEW_CONVERSATION, _NEW_MESSAGE, _NEW_KEY = insert(C), insert(M), insert(I)
_NEW_GENERATION = insert(G).returning(*G.c)
_REUSE_ANSWER = (
    update(M)
    .where(M.c.id == bindparam("answer"))
    .values(generation_id=bindparam("generation"), change=bindparam("stamp"))
)
_SHOW_LEAF = (
    update(C)
    .where(C.c.id == bindparam("target"))
    .values(
        shown_message_id=bindparam("leaf"),
        updated_at=bindparam("at"),
        change=bindparam("stamp"),
    )
)
_LAST_ROOT = select(func.max(M.c.position)).where(
    M.c.conversation_id == bindparam("target"), M.c.parent_id.is_(None)
)
_LAST_CHILD = select(func.max(M.c.position)).where(
    M.c.conversation_id == bindparam("target"), M.c.parent_id == bindparam("parent")
)


def begin_turn(session: Session, account_id: str) -> Stamp:
    """Locks the account's row: turns of one account run one after another."""
    return Stamp(account_id, next_change(session, account_id), now())


def count_active(session: Session, account_id: str) -> int:
    """How many generations of the account have not ended."""
    count: int = session.execute(_ACTIVE, {"account": account_id}).scalar_one()
    return count


def find_replay(session: Session, stamp: Stamp, key: IdempotencyKey) -> Generation | None:
    """The generation that this key was first used for, within 24 hours.

    Raises Invalid when it was used with another body.
    """
    first = session.get(Idempotency, (stamp.account_id, key.operation, key.key))
    if first is None:
        return None
    if first.created_at < stamp.at - KEY_KEPT:
        session.delete(first)
        session.flush()
        return None
    if first.body_sha256 != key.body_sha256:
        raise Invalid("idempotency_key_reused", "This Idempotency-Key was used with another body.")
    return session.get_one(Generation, first.generation_id)


def record_key(session: Session, stamp: Stamp, key: IdempotencyKey, generation_id: str) -> None:
    """Records the generation of an Idempotency-Key."""
    session.execute(
        _NEW_KEY,
        {
            "account_id": stamp.account_id,
            "operation": key.operation,
            "key": key.key,
            "body_sha256": key.body_sha256,
            "generation_id": generation_id,
            "created_at": stamp.at,
        },
    )


def add_conversation(
    session: Session, stamp: Stamp, parts: Parts, *, model: str, system_prompt: str | None
) -> Target:
    """A new conversation, titled with the first words of its first question."""
    target = Target(new_id(Prefix.CONVERSATION), model, system_prompt)
    title = first_title(parts)
    session.execute(
        _NEW_CONVERSATION,
        {
            "id": target.id,
            "account_id": stamp.account_id,
            "title": title,
            "titled_by_person": False,
            "title_due": True,
            "pinned": False,
            "archived": False,
            "model": model,
            "system_prompt": system_prompt,
            "metadata": {},
            "created_at": stamp.at,
            "updated_at": stamp.at,
            "change": stamp.change,
        },
    )
    index_title(session, stamp.account_id, target.id, title)
    return target


def add_question(
    session: Session,
    stamp: Stamp,
    target: Target,
    parent_id: str | None,
    *,
    position: int,
    parts: Parts,
    metadata: dict[str, str],
) -> str:
    """A new question at this position among its siblings; its id."""
    question_id = new_id(Prefix.MESSAGE)
    values = {"parts": parts, "metadata": metadata, "role": Role.USER}
    _add_message(session, stamp, target, question_id, parent_id, position, **values)
    index_message(session, stamp.account_id, target.id, question_id, joined_text(parts))
    return question_id


class NewGeneration(NamedTuple):
    """A generation to add, and the answer that it writes.

    That is a new answer at `position` among its siblings, or `answer` again: from the start, or
    after the content of `previous`.
    """

    target: Target
    question_id: str
    model: str
    options: dict[str, Any]
    metadata: dict[str, str]
    position: int = 0
    answer: Message | None = None
    previous: Generation | None = None


def add_generation(session: Session, stamp: Stamp, new: NewGeneration) -> Generation:
    """A queued generation with its answer, which becomes the shown leaf."""
    generation_id, target = new_id(Prefix.GENERATION), new.target
    if new.answer is None:
        answer_id, position = new_id(Prefix.MESSAGE), new.position
        values = {"generation_id": generation_id, "metadata": new.metadata, "role": Role.ASSISTANT}
        _add_message(session, stamp, target, answer_id, new.question_id, position, **values)
    else:
        answer_id, position = new.answer.id, new.answer.position
        new.answer.labels = new.metadata or new.answer.labels
        reused = {"answer": answer_id, "generation": generation_id, "stamp": stamp.change}
        session.execute(_REUSE_ANSWER, reused)
    row = session.execute(
        _NEW_GENERATION,
        {
            "id": generation_id,
            "account_id": stamp.account_id,
            "conversation_id": target.id,
            "question_id": new.question_id,
            "message_id": answer_id,
            "previous_id": new.previous.id if new.previous else None,
            "model": new.model,
            "options": new.options | {"place": position},
            "status": Status.QUEUED,
            "attempt": 0,
            "crashes": 0,
            "beat": 0,
            "parts": new.previous.parts if new.previous else [],
            "seq": 1,
            "messages_left_out": 0,
            "sealed": False,
            "created_at": stamp.at,
        },
    ).one()
    shown = {"target": target.id, "leaf": answer_id, "at": stamp.at, "stamp": stamp.change}
    session.execute(_SHOW_LEAF, shown)
    return cast("Generation", row)


def next_position(session: Session, target: Target, parent_id: str | None) -> int:
    """The number of a new message among its siblings."""
    last: int | None
    if parent_id is None:
        last = session.execute(_LAST_ROOT, {"target": target.id}).scalar_one()
    else:
        parent = {"target": target.id, "parent": parent_id}
        last = session.execute(_LAST_CHILD, parent).scalar_one()
    return 0 if last is None else last + 1


def first_title(parts: Parts) -> str:
    """The first words of a question: the title of a conversation until it has a better one."""
    text = " ".join(joined_text(parts).split())
    if len(text) <= TITLE_MAX_CHARS:
        return text
    return text[: TITLE_MAX_CHARS - 1].rstrip() + "…"


class TurnRows(NamedTuple):
    """A generation with its conversation, question and answer."""

    generation: Generation
    conversation: Conversation
    question: Message
    answer: Message


def turn_rows(session: Session, generation_id: str) -> TurnRows:
    """The rows of a turn without content, even if the conversation has been deleted since."""
    generation = session.get_one(Generation, generation_id, options=BARE_GENERATION)
    conversation_id = generation.conversation_id
    return TurnRows(
        generation,
        session.get_one(Conversation, conversation_id, options=BARE_CONVERSATION),
        session.get_one(Message, generation.question_id, options=BARE_MESSAGE),
        session.get_one(Message, generation.message_id, options=BARE_MESSAGE),
    )


def _add_message(
    session: Session,
    stamp: Stamp,
    target: Target,
    message_id: str,
    parent_id: str | None,
    position: int,
    **values: Any,
) -> None:
    session.execute(
        _NEW_MESSAGE,
        {
            "id": message_id,
            "conversation_id": target.id,
            "parent_id": parent_id,
            "position": position,
            "created_at": stamp.at,
            "change": stamp.change,
            **values,
        },
    )
