"""Requesting an answer: sending a message, editing a question, regenerating, continuing.

Each is one transaction that runs once per Idempotency-Key, moves the shown leaf, and counts towards
the limit of active answers per account.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Any, ClassVar, NamedTuple, assert_never

import orjson
from sqlmodel import Session

from server.errors import Conflict, Invalid, TooMany
from server.history import turns
from server.history.accounts import credential_expiry
from server.history.conversations import readable_conversation
from server.history.messages import MessageRow, readable_message
from server.history.search import index_title
from server.history.tables import ACTIVE, Conversation, Generation, Message, Role, Status
from server.history.turns import IdempotencyKey, NewGeneration, Stamp, Target
from server.identity.callers import Caller
from server.parts import Parts
from server.providers.registry import Models
from server.resources import Services
from server.verbs.inputs import AnswerOptions, EditMessage, SendMessage


@dataclass(frozen=True)
class Send:
    """A question after an answer of a conversation, or in a new one."""

    operation: ClassVar = "send"
    message: SendMessage


@dataclass(frozen=True)
class Edit:
    """A sibling of a question, and its answer."""

    operation: ClassVar = "edit"
    question_id: str
    message: EditMessage


@dataclass(frozen=True)
class Regenerate:
    """A sibling of an answer."""

    operation: ClassVar = "regenerate"
    answer_id: str
    options: AnswerOptions


@dataclass(frozen=True)
class Continue:
    """More of an answer that was cut short, or a restart of one that failed or was cancelled.

    The restart of a continuation keeps the content that it continued.
    """

    operation: ClassVar = "continue"
    answer_id: str
    options: AnswerOptions


Request = Send | Edit | Regenerate | Continue


class Turn(NamedTuple):
    """The generation of an answer; `replayed` if an earlier call with the same key requested it."""

    generation: Generation
    replayed: bool


async def ask(
    services: Services, caller: Caller, request: Request, *, key: str | None = None
) -> Turn:
    """Commits a turn and enqueues its generation. Raises Refused.

    Without Redis, the turn is committed all the same; a worker finds it later.
    """
    active_max = services.settings.generation.active_max_per_account
    turn = await services.database.write(
        write_turn, caller, request, key, services.models, active_max
    )
    if not turn.replayed:
        await services.queue.put(turn.generation.id)
    return turn


def write_turn(
    session: Session,
    caller: Caller,
    request: Request,
    key: str | None,
    models: Models,
    active_max: int,
) -> Turn:
    """The transaction of `ask`."""
    stamp = turns.begin_turn(session, caller.account_id)
    credential_expiry(session, caller.key_id, caller.session_sha256)
    used = IdempotencyKey(request.operation, key, _digest(request)) if key is not None else None
    if used is not None and (earlier := turns.find_replay(session, stamp, used)):
        return Turn(earlier, replayed=True)
    active = turns.count_active(session, caller.account_id)
    if active >= active_max:
        detail = f"{active} answers of this account are active; the limit is {active_max}."
        raise TooMany("too_many_active_generations", detail, limit=active_max, retry_after_s=1)
    generation = turns.add_generation(session, stamp, _plan(session, stamp, request, models))
    if used is not None:
        turns.record_key(session, stamp, used, generation.id)
    return Turn(generation, replayed=False)


def _plan(session: Session, stamp: Stamp, request: Request, models: Models) -> NewGeneration:
    """The generation to add; adds the question, if there is a new one."""
    match request:
        case Send(message):
            return _plan_send(session, stamp, message, models)
        case Edit(question_id, message):
            return _plan_edit(session, stamp, question_id, message, models)
        case Regenerate(answer_id, options):
            answer = _ended_answer(session, stamp, answer_id).message
            target, question_id = _target_of(session, answer), _question_of(answer)
            position = turns.next_position(session, target, question_id)
            new = _generation(target, question_id, options, models)
            return new._replace(position=position, metadata=options.metadata)
        case Continue(answer_id, options):
            return _plan_continue(session, stamp, answer_id, options, models)
        case _:
            assert_never(request)


def _plan_send(
    session: Session, stamp: Stamp, message: SendMessage, models: Models
) -> NewGeneration:
    parts, parent_id, position = message.parts(), message.parent_id, 0
    if message.conversation_id is None:
        if parent_id is not None:
            raise _invalid_parent("requires conversation_id")
        model, system_prompt = models.id_of(message.model), message.system_prompt
        target = turns.add_conversation(
            session, stamp, parts, model=model, system_prompt=system_prompt
        )
    else:
        conversation = readable_conversation(session, message.conversation_id, stamp.account_id)
        _title_if_untitled(session, stamp, conversation, parts)
        target = Target.of(conversation)
        if "parent_id" not in message.model_fields_set:
            parent_id = conversation.shown_message_id
        _check_parent(session, conversation, parent_id)
        position = turns.next_position(session, target, parent_id)
    question_id = turns.add_question(
        session,
        stamp,
        target,
        parent_id,
        position=position,
        parts=parts,
        metadata=message.metadata,
    )
    return _generation(target, question_id, message, models)


def _plan_edit(
    session: Session, stamp: Stamp, question_id: str, message: EditMessage, models: Models
) -> NewGeneration:
    question = readable_message(session, question_id, stamp.account_id).message
    if question.role is not Role.USER:
        raise Conflict("not_a_question", "Only a question can be edited.")
    target = _target_of(session, question)
    edited_id = turns.add_question(
        session,
        stamp,
        target,
        question.parent_id,
        position=turns.next_position(session, target, question.parent_id),
        parts=message.parts(),
        metadata=message.metadata,
    )
    return _generation(target, edited_id, message, models)


def _plan_continue(
    session: Session, stamp: Stamp, answer_id: str, options: AnswerOptions, models: Models
) -> NewGeneration:
    answer, last = _ended_answer(session, stamp, answer_id)
    assert last is not None, "an answer has a generation"
    cut_short = last.status is Status.COMPLETED and last.finish_reason == "length"
    if last.status is Status.COMPLETED and not cut_short:
        raise Conflict("answer_complete", "This answer is complete; it cannot be continued.")
    new = _generation(_target_of(session, answer), _question_of(answer), options, models)
    previous = last if cut_short else _continued_by(session, last)
    return new._replace(answer=answer, previous=previous, metadata=options.metadata)


def _continued_by(session: Session, last: Generation) -> Generation | None:
    """The generation whose content `last` was to continue: it is what a retry continues, too."""
    return session.get_one(Generation, last.previous_id) if last.previous_id else None


def _generation(
    target: Target, question_id: str, options: AnswerOptions, models: Models
) -> NewGeneration:
    """A new answer to a question, with the caller's options or else the conversation's."""
    own_prompt = options.system_prompt is not None
    values: dict[str, Any] = {
        "system_prompt": options.system_prompt if own_prompt else target.system_prompt,
        "max_output_tokens": options.max_output_tokens,
        "temperature": options.temperature,
    }
    model = models.id_of(options.model or target.model)
    return NewGeneration(target, question_id, model, values, metadata={})


def _digest(request: Request) -> str:
    """Hashes a request. Keys outlive deployments, so the hashed form must not change."""
    body: dict[str, Any]
    match request:
        case Send(message):
            has_parent = "parent_id" in message.model_fields_set
            body = {
                "parts": message.parts(),
                "conversation_id": message.conversation_id,
                "parent_id": [message.parent_id] if has_parent else None,
            }
            options: AnswerOptions = message
        case Edit(question_id, message):
            body, options = {"question_id": question_id, "parts": message.parts()}, message
        case Regenerate(answer_id, options) | Continue(answer_id, options):
            body = {"answer_id": answer_id}
        case _:
            assert_never(request)
    of_answer = {name: getattr(options, name) for name in AnswerOptions.model_fields}
    return sha256(orjson.dumps([body, of_answer], option=orjson.OPT_SORT_KEYS)).hexdigest()


def _title_if_untitled(
    session: Session, stamp: Stamp, conversation: Conversation, parts: Parts
) -> None:
    if not conversation.title:
        conversation.title = turns.first_title(parts)
        index_title(session, stamp.account_id, conversation.id, conversation.title)


def _check_parent(session: Session, conversation: Conversation, parent_id: str | None) -> None:
    """Raises Invalid unless the parent is an answer here, and Conflict while it is active."""
    if parent_id is None:
        return
    parent = session.get(Message, parent_id)
    of_conversation = parent is not None and parent.conversation_id == conversation.id
    if parent is None or not of_conversation or parent.role is not Role.ASSISTANT:
        raise _invalid_parent("must be an answer of this conversation")
    _check_ended(session, parent)


def _ended_answer(session: Session, stamp: Stamp, answer_id: str) -> MessageRow:
    answer = readable_message(session, answer_id, stamp.account_id)
    if answer.message.role is not Role.ASSISTANT:
        raise Conflict("not_an_answer", "Only an answer can be regenerated or continued.")
    _check_ended(session, answer.message)
    return answer


def _check_ended(session: Session, answer: Message) -> None:
    generation = session.get_one(Generation, answer.generation_id)
    if generation.status in ACTIVE:
        detail = "This answer is still being generated. Cancel it or wait for its end."
        raise Conflict("answer_in_progress", detail, generation_id=generation.id)


def _invalid_parent(reason: str) -> Invalid:
    return Invalid.at("/parent_id", reason, code="invalid_parent")


def _target_of(session: Session, message: Message) -> Target:
    return Target.of(session.get_one(Conversation, message.conversation_id))


def _question_of(answer: Message) -> str:
    assert answer.parent_id is not None, "an answer has a question"
    return answer.parent_id
