"""The shapes of answers, for openapi.json. The code that fills them is in `history`; a test holds every answer against its shape."""

from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

T = TypeVar("T")
Status = Literal["queued", "running", "completed", "cancelled", "failed"]


class Shape(BaseModel):
    """An object that is answered. Keys may be added later; clients ignore those they do not know."""

    model_config = ConfigDict(extra="forbid", title=None)


class Part(BaseModel):
    """A part of a content; its other keys depend on `type`."""

    model_config = ConfigDict(extra="allow")

    type: Literal["text", "reasoning", "tool_call", "tool_result", "file"]


class Fault(Shape):
    pointer: str
    detail: str


class Problem(BaseModel):
    """Why a request was refused, as `application/problem+json`."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[Fault] | None = None
    limit: int | None = None
    retry_after_s: int | None = None


class GenerationError(Shape):
    code: str
    message: str
    retryable: bool


class Context(Shape):
    messages_left_out: int


class Asked(Shape):
    """What was asked for, and where to follow it."""

    conversation_id: str
    question_id: str
    message_id: str
    generation_id: str
    model: str
    events_url: str


class Snapshot(Shape):
    """A generation as of event `seq`."""

    id: str
    conversation_id: str
    question_id: str
    message_id: str
    model: str
    status: Status
    attempt: int
    seq: int
    content: list[Part]
    text: str
    finish_reason: str | None
    usage: dict[str, Any] | None
    error: GenerationError | None
    context: Context
    created_at: str
    started_at: str | None
    first_token_at: str | None
    finished_at: str | None


class Message(Shape):
    """A question or an answer. `siblings` are all messages with the same parent, this one included, in order."""

    id: str
    conversation_id: str
    parent_id: str | None
    role: Literal["user", "assistant"]
    content: list[Part]
    text: str
    status: Status
    model: str | None
    generation_id: str | None
    finish_reason: str | None
    usage: dict[str, Any] | None
    error: GenerationError | None
    metadata: dict[str, str]
    siblings: list[str]
    created_at: str


class Conversation(Shape):
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


class Export(Shape):
    """A whole conversation. The messages are those of every branch, in no order that matters: `parent_id` and `siblings` are the tree."""

    conversation: Conversation
    messages: list[Message]


class Model(Shape):
    id: str
    provider: str
    name: str
    context_tokens: int
    default: bool


class Page(Shape, Generic[T]):
    """A page of a list; `next`, given as `before`, leads to the one after it."""

    data: list[T]
    next: str | None


class AccountRef(Shape):
    id: str


class UserRef(Shape):
    id: str
    email: str | None


class Session(Shape):
    """Who is signed in."""

    account: AccountRef
    user: UserRef | None
    guest: bool


class Health(BaseModel):
    """How something is."""

    model_config = ConfigDict(extra="allow")

    status: str
