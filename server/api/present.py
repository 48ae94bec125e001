"""Presents rows as the JSON of the HTTP interface. openapi.json is generated from these types."""

from typing import Any, Generic, Literal, NotRequired, TypeVar, cast

from typing_extensions import TypedDict

from server.changes.follower import AnswerEvent, ChangeEvent, Opened, Resync
from server.history.conversations import ConversationRow
from server.history.feed import ConversationChange, MessageChange
from server.history.messages import MessageRow
from server.history.tables import Generation
from server.history.tree import SiblingWindow
from server.lifecycle.row_events import (
    GenerationError,
    Part,
    StatusWord,
    snapshot_data,
)
from server.parts import joined_text
from server.providers.registry import Model as OfferedModel
from server.times import rfc3339

T = TypeVar("T")


class InputError(TypedDict):
    """An invalid value: `pointer` is a JSON pointer or the name of a parameter."""

    pointer: str
    detail: str


class Problem(TypedDict):
    """Why a request was refused, as `application/problem+json`."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: NotRequired[list[InputError]]
    limit: NotRequired[int]
    retry_after_s: NotRequired[int]


class RequestedAnswer(TypedDict):
    """The answer that was requested, and where to follow it."""

    conversation_id: str
    question_id: str
    message_id: str
    generation_id: str
    model: str
    events_url: str


class Message(TypedDict):
    """A question or an answer.

    `siblings` are the messages with the same parent, this one included, in order: at most 100
    around it. `sibling_count` counts all, and `position` is the index among all, from 0.
    """

    id: str
    conversation_id: str
    parent_id: str | None
    role: Literal["user", "assistant"]
    content: list[Part]
    text: str
    status: StatusWord
    model: str | None
    generation_id: str | None
    finish_reason: str | None
    usage: dict[str, Any] | None
    error: GenerationError | None
    metadata: dict[str, str]
    position: int
    siblings: list[str]
    sibling_count: int
    created_at: str


class Conversation(TypedDict):
    """A tree of messages; `shown_message_id` is the leaf whose branch is shown."""

    id: str
    title: str
    pinned: bool
    archived: bool
    model: str
    system_prompt: str | None
    metadata: dict[str, str]
    shown_message_id: str | None
    active_generations: list[str]
    created_at: str
    updated_at: str


class Export(TypedDict):
    """A whole conversation: the messages of every branch, in no particular order.

    `parent_id` and `position` define the tree; `siblings` is empty if there are more than 100.
    """

    conversation: Conversation
    messages: list[Message]


class Model(TypedDict):
    """A model that can be requested."""

    id: str
    provider: str
    name: str
    context_tokens: int
    default: bool


class Page(TypedDict, Generic[T]):
    """A page of a list; `next` is the value of `before` for the page after it."""

    data: list[T]
    next: str | None


class AccountRef(TypedDict):
    """The account of the caller."""

    id: str


class UserRef(TypedDict):
    """The user of the caller."""

    id: str
    email: str | None


class Session(TypedDict):
    """Who is signed in."""

    account: AccountRef
    user: UserRef | None
    guest: bool


class SessionPreview(TypedDict):
    """What a sign-in link would do: whom it signs in, and what this browser's guest could bring."""

    email: str
    guest_conversations: int


class Health(TypedDict):
    """The state of this process or installation."""

    status: str


def requested_answer_json(generation: Generation, base_path: str) -> RequestedAnswer:
    """The ids of a requested answer."""
    return {
        "conversation_id": generation.conversation_id,
        "question_id": generation.question_id,
        "message_id": generation.message_id,
        "generation_id": generation.id,
        "model": generation.model,
        "events_url": f"{base_path}/api/generations/{generation.id}/events",
    }


def conversation_json(row: ConversationRow) -> Conversation:
    conversation = row.conversation
    return {
        "id": conversation.id,
        "title": conversation.title,
        "pinned": conversation.pinned,
        "archived": conversation.archived,
        "model": conversation.model,
        "system_prompt": conversation.system_prompt,
        "metadata": conversation.labels,
        "shown_message_id": conversation.shown_message_id,
        "active_generations": row.active_ids,
        "created_at": rfc3339(conversation.created_at),
        "updated_at": rfc3339(conversation.updated_at),
    }


def message_json(row: MessageRow, siblings: SiblingWindow) -> Message:
    """A message among its siblings."""
    message, generation = row
    error = generation.error if generation else None
    return {
        "id": message.id,
        "conversation_id": message.conversation_id,
        "parent_id": message.parent_id,
        "role": message.role.value,
        "content": cast("list[Part]", row.parts),
        "text": joined_text(row.parts),
        "status": row.status.value,
        "model": generation.model if generation else None,
        "generation_id": message.generation_id,
        "finish_reason": generation.finish_reason if generation else None,
        "usage": generation.usage if generation else None,
        "error": cast("GenerationError | None", error),
        "metadata": message.labels,
        "position": message.position,
        "siblings": siblings.ids,
        "sibling_count": siblings.total,
        "created_at": rfc3339(message.created_at),
    }


def model_json(model: OfferedModel, *, default: bool) -> Model:
    return {
        "id": model.id,
        "provider": model.provider,
        "name": model.name,
        "context_tokens": model.context_tokens,
        "default": default,
    }


def page_json(data: list[T], next: str | None) -> Page[T]:
    return {"data": data, "next": next}


def change_json(event: ChangeEvent) -> tuple[str, dict[str, Any]]:
    """The type and data of a change event that is not an answer's event."""
    match event.what:
        case Opened(conversation, active):
            messages = conversation.messages if conversation else []
            siblings = conversation.siblings if conversation else {}
            return "opened", {
                "conversation": conversation_json(conversation.row) if conversation else None,
                "messages": [message_json(row, siblings[row.message.id]) for row in messages],
                "before": conversation.before if conversation else None,
                "generations": [snapshot_data(*each) for each in active],
            }
        case ConversationChange(row=None, id=id):
            return "conversation_removed", {"id": id}
        case ConversationChange(row=row):
            assert row is not None, "matched above"
            return "conversation_changed", {"conversation": conversation_json(row)}
        case MessageChange(row=row, siblings=siblings):
            return "message_changed", {"message": message_json(row, siblings)}
        case Resync():
            return "resync", {}
        case AnswerEvent():
            raise AssertionError("handled by the caller")
