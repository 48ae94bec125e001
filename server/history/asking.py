"""Asking: a question, its answer and the generation that will write it, in one transaction.

Four ways to ask: send a message, edit a question, regenerate an answer, continue an answer. Each is done once per Idempotency-Key, moves
the shown leaf, and counts against how many answers of an account may be written at a time.
"""

from collections.abc import Callable
from typing import Any, Concatenate, NamedTuple, ParamSpec

from sqlmodel import Session

from server.errors import Conflict, Invalid
from server.history.conversations import readable_conversation
from server.history.exchange import Asked, Asker, Asking, Options, Place, first_title
from server.history.messages import Said, readable_message
from server.history.search import index_title
from server.history.tables import ACTIVE, Conversation, Generation, Message, Role, Status
from server.parts import Parts

P = ParamSpec("P")

SHOWN_LEAF = object()
"""Stands for «after what is shown» where a parent may be named."""


def send_message(
    session: Session,
    asker: Asker,
    parts: Parts,
    options: Options,
    *,
    conversation_id: str | None = None,
    parent_id: Any = SHOWN_LEAF,
) -> Asked:
    """A question after `parent_id` (None: a new root), in a new conversation where none is named. Raises Refused."""
    body = {
        "parts": parts,
        "conversation_id": conversation_id,
        "parent_id": None if parent_id is SHOWN_LEAF else [parent_id],
    }
    asking = Asking(session, asker, "send", body, options)
    if asking.replay is not None:
        return asking.replay
    if conversation_id is None:
        if parent_id is not SHOWN_LEAF and parent_id is not None:
            raise _invalid_parent("a parent needs the conversation it is in")
        place = asking.new_conversation(parts)
        return asking.ask(place, asking.new_question(place, None, parts, position=0))
    conversation = readable_conversation(session, conversation_id, asker.account_id)
    if not conversation.title:
        conversation.title = first_title(parts)
        index_title(session, asker.account_id, conversation.id, conversation.title)
    parent_id = conversation.shown_message_id if parent_id is SHOWN_LEAF else parent_id
    _check_parent(session, conversation, parent_id)
    place = Place(conversation.id, conversation.model, conversation.system_prompt)
    return asking.ask(
        place,
        asking.new_question(
            place, parent_id, parts, position=asking.next_position(place.id, parent_id)
        ),
    )


def edit_message(
    session: Session, asker: Asker, question_id: str, parts: Parts, options: Options
) -> Asked:
    """A sibling of a question, and its answer. Raises Refused."""
    asking = Asking(session, asker, "edit", {"question_id": question_id, "parts": parts}, options)
    if asking.replay is not None:
        return asking.replay
    question = readable_message(session, question_id, asker.account_id).message
    if question.role is not Role.USER:
        raise Conflict("not_a_question", "Only a question can be edited.")
    place = _place_of(session, question.conversation_id)
    position = asking.next_position(place.id, question.parent_id)
    return asking.ask(
        place, asking.new_question(place, question.parent_id, parts, position=position)
    )


def regenerate_message(session: Session, asker: Asker, answer_id: str, options: Options) -> Asked:
    """A sibling of an answer. Raises Refused."""
    asking = Asking(session, asker, "regenerate", {"answer_id": answer_id}, options)
    if asking.replay is not None:
        return asking.replay
    answer = _ended_answer(session, asker, answer_id)
    question_id = _question_of(answer.message)
    place = _place_of(session, answer.message.conversation_id)
    return asking.ask(
        place,
        question_id,
        position=asking.next_position(place.id, question_id),
        metadata=options.metadata,
    )


def continue_message(session: Session, asker: Asker, answer_id: str, options: Options) -> Asked:
    """Another generation of the same answer: goes on after `length`, starts over after `failed` or `cancelled`. Raises Refused."""
    asking = Asking(session, asker, "continue", {"answer_id": answer_id}, options)
    if asking.replay is not None:
        return asking.replay
    answer = _ended_answer(session, asker, answer_id)
    before = answer.generation
    assert before is not None, "an answer has a generation"
    goes_on = before.status is Status.COMPLETED and before.finish_reason == "length"
    if before.status is Status.COMPLETED and not goes_on:
        raise Conflict("answer_complete", "This answer is complete: there is nothing to continue.")
    place = _place_of(session, answer.message.conversation_id)
    return asking.ask(
        place,
        _question_of(answer.message),
        answer=answer.message,
        previous=before if goes_on else None,
    )


class Turn(NamedTuple):
    """What was asked for, with everything around it as it is now."""

    generation: Generation
    replayed: bool
    conversation: Conversation
    question: Message
    answer: Message


def turn(
    session: Session,
    asker: Asker,
    ask: Callable[Concatenate[Session, Asker, P], Asked],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> Turn:
    """Asks, and reads what came of it in the same transaction. Raises Refused."""
    generation, replayed = ask(session, asker, *args, **kwargs)
    generation_id = generation.id
    session.flush()
    session.expire_all()  # the hot path writes behind the session's back
    now_asked = session.get_one(Generation, generation_id)
    return Turn(
        now_asked,
        replayed,
        session.get_one(Conversation, now_asked.conversation_id),
        session.get_one(Message, now_asked.question_id),
        session.get_one(Message, now_asked.message_id),
    )


def _check_parent(session: Session, conversation: Conversation, parent_id: str | None) -> None:
    """A question follows an answer of the same conversation, once that is over."""
    if parent_id is None:
        return
    parent = session.get(Message, parent_id)
    if (
        parent is None
        or parent.conversation_id != conversation.id
        or parent.role is not Role.ASSISTANT
    ):
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
            "answer_in_progress",
            "This answer is still being written; stop it, or wait for its end.",
            generation_id=generation.id,
        )


def _invalid_parent(reason: str) -> Invalid:
    return Invalid(
        "invalid_parent",
        f"parent_id: {reason}.",
        errors=[{"pointer": "/parent_id", "detail": reason}],
    )


def _place_of(session: Session, conversation_id: str) -> Place:
    conversation = session.get_one(Conversation, conversation_id)
    return Place(conversation.id, conversation.model, conversation.system_prompt)


def _question_of(answer: Message) -> str:
    assert answer.parent_id is not None, "an answer has a question"
    return answer.parent_id
