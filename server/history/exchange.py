"""The rows of a question, its answer and the generation that will write it, once per Idempotency-Key and within a limit."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from typing import Any, NamedTuple, cast

import orjson
from sqlalchemy import bindparam, func, insert, select, update
from sqlmodel import Session

from server.errors import Invalid, TooMany
from server.history.changes import next_change
from server.history.search import index_message, index_title
from server.history.tables import CONVERSATIONS as C
from server.history.tables import GENERATIONS as G
from server.history.tables import IDEMPOTENCIES as I
from server.history.tables import MESSAGES as M
from server.history.tables import Generation, Idempotency, Message, Role, Status, now
from server.ids import Prefix, new_id
from server.parts import Parts, joined_text

TITLE_MAX_CHARS = 60
KEY_KEPT = timedelta(hours=24)


@dataclass(frozen=True)
class Options:
    """How an answer is to be written. A model is named as the caller named it."""

    model: str | None = None
    system_prompt: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Asker:
    """Who asks, once per key, and within which limit. `model_of` gives the full id of a name, or raises Invalid."""

    account_id: str
    model_of: Callable[[str | None], str]
    active_max: int
    key: str | None = None


class Asked(NamedTuple):
    """The generation that was asked for, now or (`replayed`) with the same key before."""

    generation: Generation
    replayed: bool


class Place(NamedTuple):
    """The conversation that is asked in, and what it says of its answers."""

    id: str
    model: str
    system_prompt: str | None


_ACTIVE = (
    select(func.count())
    .select_from(G)
    .where(G.c.account_id == bindparam("account"), G.c.finished_at.is_(None))
)
_NEW_CONVERSATION, _NEW_MESSAGE, _NEW_KEY = insert(C), insert(M), insert(I)
_NEW_GENERATION = insert(G).returning(*G.c)
_REUSED_ANSWER = (
    update(M)
    .where(M.c.id == bindparam("answer"))
    .values(generation_id=bindparam("by"), change=bindparam("stamp"))
)
_SHOWN = (
    update(C)
    .where(C.c.id == bindparam("place"))
    .values(
        shown_message_id=bindparam("leaf"), updated_at=bindparam("at"), change=bindparam("stamp")
    )
)
_LAST_ROOT = select(func.max(M.c.position)).where(
    M.c.conversation_id == bindparam("place"), M.c.parent_id.is_(None)
)
_LAST_CHILD = select(func.max(M.c.position)).where(
    M.c.conversation_id == bindparam("place"), M.c.parent_id == bindparam("parent")
)


class Asking:
    """One request to write an answer, inside its transaction, which holds the account's row."""

    def __init__(
        self, session: Session, asker: Asker, operation: str, body: dict[str, Any], options: Options
    ) -> None:
        self.session, self.asker, self.options, self._operation = session, asker, options, operation
        self.change, self.at = next_change(session, asker.account_id), now()
        self._body_sha256 = sha256(
            orjson.dumps([body, options], option=orjson.OPT_SORT_KEYS)
        ).hexdigest()
        self.replay = self._find_replay()
        if self.replay is None:
            self._check_limit()

    def _find_replay(self) -> Asked | None:
        if self.asker.key is None:
            return None
        first = self.session.get(
            Idempotency, (self.asker.account_id, self._operation, self.asker.key)
        )
        if first is None:
            return None
        if first.created_at < self.at - KEY_KEPT:
            self.session.delete(first)
            self.session.flush()
            return None
        if first.body_sha256 != self._body_sha256:
            raise Invalid(
                "idempotency_key_reused", "This Idempotency-Key was used with another body."
            )
        return Asked(self.session.get_one(Generation, first.generation_id), replayed=True)

    def _check_limit(self) -> None:
        active = self.session.execute(_ACTIVE, {"account": self.asker.account_id}).scalar_one()
        limit = self.asker.active_max
        if active >= limit:
            detail = f"{active} answers are being written for this account; at most {limit} may be."
            raise TooMany("too_many_active_generations", detail, limit=limit, retry_after_s=1)

    def new_conversation(self, parts: Parts) -> Place:
        place = Place(
            new_id(Prefix.CONVERSATION),
            self.asker.model_of(self.options.model),
            self.options.system_prompt,
        )
        title = first_title(parts)
        self.session.execute(
            _NEW_CONVERSATION,
            {
                "id": place.id,
                "account_id": self.asker.account_id,
                "title": title,
                "titled_by_person": False,
                "title_due": True,
                "pinned": False,
                "archived": False,
                "model": place.model,
                "system_prompt": place.system_prompt,
                "metadata": {},
                "created_at": self.at,
                "updated_at": self.at,
                "change": self.change,
            },
        )
        index_title(self.session, self.asker.account_id, place.id, title)
        return place

    def new_question(
        self, place: Place, parent_id: str | None, parts: Parts, *, position: int
    ) -> str:
        """The id of a new question."""
        question_id = new_id(Prefix.MESSAGE)
        self._new_message(
            question_id,
            place,
            parent_id,
            position,
            Role.USER,
            parts=parts,
            metadata=self.options.metadata,
        )
        index_message(
            self.session, self.asker.account_id, place.id, question_id, joined_text(parts)
        )
        return question_id

    def ask(
        self,
        place: Place,
        question_id: str,
        *,
        position: int = 0,
        metadata: dict[str, str] | None = None,
        answer: Message | None = None,
        previous: Generation | None = None,
    ) -> Asked:
        """A queued generation for `answer`, or for a new answer to the question, at that position among its siblings."""
        generation_id, options = new_id(Prefix.GENERATION), self.options
        if answer is None:
            answer_id = new_id(Prefix.MESSAGE)
            self._new_message(
                answer_id,
                place,
                question_id,
                position,
                Role.ASSISTANT,
                generation_id=generation_id,
                metadata=metadata or {},
            )
        else:
            answer_id, position = answer.id, answer.position
            answer.labels = options.metadata or answer.labels
            self.session.execute(
                _REUSED_ANSWER, {"answer": answer_id, "by": generation_id, "stamp": self.change}
            )
        generation = self.session.execute(
            _NEW_GENERATION,
            {
                "id": generation_id,
                "account_id": self.asker.account_id,
                "conversation_id": place.id,
                "question_id": question_id,
                "message_id": answer_id,
                "previous_id": previous.id if previous else None,
                "model": self.asker.model_of(options.model or place.model),
                "options": {
                    "system_prompt": place.system_prompt
                    if options.system_prompt is None
                    else options.system_prompt,
                    "max_output_tokens": options.max_output_tokens,
                    "temperature": options.temperature,
                    "place": position,
                },
                "status": Status.QUEUED,
                "attempt": 0,
                "crashes": 0,
                "beat": 0,
                "parts": previous.parts if previous else [],
                "seq": 1,
                "messages_left_out": 0,
                "sealed": False,
                "created_at": self.at,
            },
        ).one()
        self.session.execute(
            _SHOWN, {"place": place.id, "leaf": answer_id, "at": self.at, "stamp": self.change}
        )
        if self.asker.key is not None:
            self._remember(generation_id)
        return Asked(cast("Generation", generation), replayed=False)

    def next_position(self, conversation_id: str, parent_id: str | None) -> int:
        """The place of a new message among its siblings."""
        if parent_id is None:
            last = self.session.execute(_LAST_ROOT, {"place": conversation_id}).scalar_one()
        else:
            last = self.session.execute(
                _LAST_CHILD, {"place": conversation_id, "parent": parent_id}
            ).scalar_one()
        return 0 if last is None else last + 1

    def _new_message(
        self,
        message_id: str,
        place: Place,
        parent_id: str | None,
        position: int,
        role: Role,
        **values: Any,
    ) -> None:
        self.session.execute(
            _NEW_MESSAGE,
            {
                "id": message_id,
                "conversation_id": place.id,
                "parent_id": parent_id,
                "position": position,
                "role": role,
                "created_at": self.at,
                "change": self.change,
                **values,
            },
        )

    def _remember(self, generation_id: str) -> None:
        self.session.execute(
            _NEW_KEY,
            {
                "account_id": self.asker.account_id,
                "operation": self._operation,
                "key": self.asker.key,
                "body_sha256": self._body_sha256,
                "generation_id": generation_id,
                "created_at": self.at,
            },
        )


def first_title(parts: Parts) -> str:
    """The first words of the question: what a conversation is called until it has a title."""
    text = " ".join(joined_text(parts).split())
    return text if len(text) <= TITLE_MAX_CHARS else text[: TITLE_MAX_CHARS - 1].rstrip() + "…"
