"""Asking: a question, its answer and the generation that will write it, in one transaction.

Four ways to ask: send a message, edit a question, regenerate an answer, continue an answer. Each is done once per Idempotency-Key, moves
the shown leaf, and counts against how many answers of an account may be written at a time.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple

import orjson
from sqlmodel import Session, col, func, select

from server.errors import Conflict, Invalid, TooMany
from server.history.changes import next_change
from server.history.conversations import readable_conversation
from server.history.messages import Said, readable_message
from server.history.tables import ACTIVE, Conversation, Generation, Idempotency, Message, Role, Status, now
from server.ids import Prefix, new_id
from server.parts import Parts, joined_text

TITLE_MAX_CHARS = 60


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


SHOWN_LEAF = object()
"""Stands for «after what is shown» where a parent may be named."""


def send_message(
    session: Session, asker: Asker, parts: Parts, options: Options, *, conversation_id: str | None = None, parent_id: Any = SHOWN_LEAF
) -> Asked:
    """A question after `parent_id` (None: a new root), in a new conversation where none is named. Raises Refused."""
    body = {"parts": parts, "conversation_id": conversation_id, "parent_id": None if parent_id is SHOWN_LEAF else [parent_id]}
    asking = _Asking(session, asker, "send", body, options)
    if asking.replay is not None:
        return asking.replay
    if conversation_id is None:
        if parent_id is not SHOWN_LEAF and parent_id is not None:
            raise _invalid_parent("a parent needs the conversation it is in")
        conversation = asking.new_conversation(parts)
        parent_id = None
    else:
        conversation = readable_conversation(session, conversation_id, asker.account_id)
        parent_id = conversation.shown_message_id if parent_id is SHOWN_LEAF else parent_id
        _check_parent(session, conversation, parent_id)
    return asking.ask(conversation, asking.new_question(conversation, parent_id, parts))


def edit_message(session: Session, asker: Asker, question_id: str, parts: Parts, options: Options) -> Asked:
    """A sibling of a question, and its answer. Raises Refused."""
    asking = _Asking(session, asker, "edit", {"question_id": question_id, "parts": parts}, options)
    if asking.replay is not None:
        return asking.replay
    question = readable_message(session, question_id, asker.account_id).message
    if question.role is not Role.USER:
        raise Conflict("not_a_question", "Only a question can be edited.")
    conversation = readable_conversation(session, question.conversation_id, asker.account_id)
    return asking.ask(conversation, asking.new_question(conversation, question.parent_id, parts))


def regenerate_message(session: Session, asker: Asker, answer_id: str, options: Options) -> Asked:
    """A sibling of an answer. Raises Refused."""
    asking = _Asking(session, asker, "regenerate", {"answer_id": answer_id}, options)
    if asking.replay is not None:
        return asking.replay
    answer = _ended_answer(session, asker, answer_id)
    conversation = readable_conversation(session, answer.message.conversation_id, asker.account_id)
    question = session.get_one(Message, answer.message.parent_id)
    return asking.ask(conversation, question)


def continue_message(session: Session, asker: Asker, answer_id: str, options: Options) -> Asked:
    """Another generation of the same answer: goes on after `length`, starts over after `failed` or `cancelled`. Raises Refused."""
    asking = _Asking(session, asker, "continue", {"answer_id": answer_id}, options)
    if asking.replay is not None:
        return asking.replay
    answer = _ended_answer(session, asker, answer_id)
    before = answer.generation
    assert before is not None, "an answer has a generation"
    goes_on = before.status is Status.COMPLETED and before.finish_reason == "length"
    if before.status is Status.COMPLETED and not goes_on:
        raise Conflict("answer_complete", "This answer is complete: there is nothing to continue.")
    conversation = readable_conversation(session, answer.message.conversation_id, asker.account_id)
    question = session.get_one(Message, answer.message.parent_id)
    return asking.ask(conversation, question, answer=answer.message, previous=before if goes_on else None)


class _Asking:
    """One request to write an answer, inside its transaction, which holds the account's row."""

    def __init__(self, session: Session, asker: Asker, operation: str, body: dict[str, Any], options: Options) -> None:
        self.session, self.asker, self.options, self._operation = session, asker, options, operation
        self.change = next_change(session, asker.account_id)
        self._body_sha256 = sha256(orjson.dumps([body, options], option=orjson.OPT_SORT_KEYS)).hexdigest()
        self.replay = self._find_replay()
        if self.replay is None:
            self._check_limit()

    def _find_replay(self) -> Asked | None:
        if self.asker.key is None:
            return None
        first = self.session.get(Idempotency, (self.asker.account_id, self._operation, self.asker.key))
        if first is None:
            return None
        if first.body_sha256 != self._body_sha256:
            raise Invalid("idempotency_key_reused", "This Idempotency-Key was used with another body.")
        return Asked(self.session.get_one(Generation, first.generation_id), replayed=True)

    def _check_limit(self) -> None:
        of_account = (Generation.account_id == self.asker.account_id, col(Generation.finished_at).is_(None))
        active = self.session.exec(select(func.count()).select_from(Generation).where(*of_account)).one()
        limit = self.asker.active_max
        if active >= limit:
            detail = f"{active} answers are being written for this account; at most {limit} may be."
            raise TooMany("too_many_active_generations", detail, limit=limit, retry_after_s=1)

    def new_conversation(self, parts: Parts) -> Conversation:
        conversation = Conversation(
            id=new_id(Prefix.CONVERSATION),
            account_id=self.asker.account_id,
            title=_first_title(parts),
            model=self.asker.model_of(self.options.model),
            system_prompt=self.options.system_prompt,
        )
        self.session.add(conversation)
        self.session.flush()
        return conversation

    def new_question(self, conversation: Conversation, parent_id: str | None, parts: Parts) -> Message:
        question = Message(
            id=new_id(Prefix.MESSAGE),
            conversation_id=conversation.id,
            parent_id=parent_id,
            position=self._next_position(conversation, parent_id),
            role=Role.USER,
            parts=parts,
            labels=self.options.metadata,
            change=self.change,
        )
        self.session.add(question)
        return question

    def ask(
        self, conversation: Conversation, question: Message, *, answer: Message | None = None, previous: Generation | None = None
    ) -> Asked:
        """A queued generation for `answer`, or for a new answer to `question`."""
        options, generation_id = self.options, new_id(Prefix.GENERATION)
        if answer is None:
            answer = Message(
                id=new_id(Prefix.MESSAGE),
                conversation_id=conversation.id,
                parent_id=question.id,
                position=self._next_position(conversation, question.id),
                role=Role.ASSISTANT,
            )
            self.session.add(answer)
        answer.generation_id, answer.change = generation_id, self.change
        generation = Generation(
            id=generation_id,
            account_id=conversation.account_id,
            conversation_id=conversation.id,
            question_id=question.id,
            message_id=answer.id,
            previous_id=previous.id if previous else None,
            parts=previous.parts if previous else [],
            model=self.asker.model_of(options.model or conversation.model),
            options={
                "system_prompt": options.system_prompt or conversation.system_prompt,
                "max_output_tokens": options.max_output_tokens,
                "temperature": options.temperature,
                "place": answer.position,
            },
        )
        self.session.add(generation)
        conversation.shown_message_id = answer.id
        conversation.updated_at, conversation.change = now(), self.change
        if self.asker.key is not None:
            self.session.add(
                Idempotency(
                    account_id=self.asker.account_id,
                    operation=self._operation,
                    key=self.asker.key,
                    body_sha256=self._body_sha256,
                    generation_id=generation_id,
                )
            )
        self.session.flush()
        return Asked(generation, replayed=False)

    def _next_position(self, conversation: Conversation, parent_id: str | None) -> int:
        under = col(Message.parent_id) == parent_id if parent_id else col(Message.parent_id).is_(None)
        last = self.session.exec(select(func.max(Message.position)).where(Message.conversation_id == conversation.id, under)).one()
        return 0 if last is None else last + 1


def _check_parent(session: Session, conversation: Conversation, parent_id: str | None) -> None:
    """A question follows an answer of the same conversation, once that is over."""
    if parent_id is None:
        return
    parent = session.exec(select(Message).where(Message.id == parent_id, Message.conversation_id == conversation.id)).one_or_none()
    if parent is None or parent.role is not Role.ASSISTANT:
        raise _invalid_parent("it must be an answer of this conversation")
    _check_ended(session, parent)


def _ended_answer(session: Session, asker: Asker, answer_id: str) -> Said:
    answer = readable_message(session, answer_id, asker.account_id)
    if answer.message.role is not Role.ASSISTANT:
        raise Conflict("not_an_answer", "Only an answer can be written again.")
    _check_ended(session, answer.message)
    return answer


def _check_ended(session: Session, answer: Message) -> None:
    generation = session.get_one(Generation, answer.generation_id)
    if generation.status in ACTIVE:
        raise Conflict(
            "answer_in_progress", "This answer is still being written; stop it, or wait for its end.", generation_id=generation.id
        )


def _invalid_parent(reason: str) -> Invalid:
    return Invalid("invalid_parent", f"parent_id: {reason}.", errors=[{"pointer": "/parent_id", "detail": reason}])


def _first_title(parts: Parts) -> str:
    """The first words of the question: what a conversation is called until it has a title."""
    text = " ".join(joined_text(parts).split())
    return text if len(text) <= TITLE_MAX_CHARS else text[: TITLE_MAX_CHARS - 1].rstrip() + "…"
