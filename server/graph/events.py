"""The events of a generation as the graph tells them. One field name has one type in all of them."""

import dataclasses
from collections.abc import Callable
from operator import itemgetter
from typing import Any, cast

import orjson
import strawberry

from server.graph.content import GenerationError, Usage, error_of, usage_of
from server.graph.scalars import FinishReason, finish_reason
from server.graph.types import Generation
from server.stream.events import Event, EventType


@strawberry.interface(
    description="One event of a conversation. Kinds of events may be added: ask for `cursor` and `__typename` of every one."
)
class ConversationEvent:
    cursor: str = strawberry.field(
        description="Given as `after`, the stream goes on behind this event."
    )


@strawberry.interface(
    description="One event of a generation. Kinds of events may be added: ask for `cursor` and `__typename` of every one."
)
class GenerationEvent(ConversationEvent):
    seq: int = strawberry.field(
        description="Its number. Numbers are consecutive, except that restarts and snapshots may jump ahead."
    )
    generation_id: strawberry.ID = strawberry.field(description="The generation it belongs to.")


@strawberry.type(description="The answer was asked for, and waits for a worker.")
class GenerationQueued(GenerationEvent):
    conversation_id: strawberry.ID = strawberry.field(description="The conversation it is in.")
    question_id: strawberry.ID = strawberry.field(description="The message it answers.")
    message_id: strawberry.ID = strawberry.field(description="The answer.")
    model: str = strawberry.field(description="The id of the model that writes it.")


@strawberry.type(description="A worker has taken it.")
class GenerationStarted(GenerationEvent):
    attempt: int = strawberry.field(description="Which attempt this is.")


@strawberry.type(description="The answer starts over: forget all content.")
class GenerationRestarted(GenerationEvent):
    attempt: int = strawberry.field(description="Which attempt this is.")
    reason: str = strawberry.field(description="Why, e.g. `worker_lost`.")


@strawberry.type(description="Another worker goes on: keep everything.")
class GenerationResumed(GenerationEvent):
    attempt: int = strawberry.field(description="Which attempt this is.")
    reason: str = strawberry.field(description="Why, e.g. `handed_over`.")


@strawberry.type(description="More text. Deltas may be joined under load: never count them.")
class GenerationTextDelta(GenerationEvent):
    part: int = strawberry.field(
        description="The number of the part it is appended to; a new one opens a part."
    )
    text: str = strawberry.field(description="What to append.")


@strawberry.type(description="More reasoning.")
class GenerationReasoningDelta(GenerationEvent):
    part: int = strawberry.field(
        description="The number of the part it is appended to; a new one opens a part."
    )
    text: str = strawberry.field(description="What to append.")


@strawberry.type(description="The model wants a tool to be called: a whole part.")
class GenerationToolCall(GenerationEvent):
    part: int = strawberry.field(description="The number of the part.")
    call_id: strawberry.ID = strawberry.field(description="Names this call.")
    name: str = strawberry.field(description="The tool's name.")
    arguments: str = strawberry.field(description="The arguments: JSON, as the model wrote it.")


@strawberry.type(description="What a tool answered: a whole part.")
class GenerationToolResult(GenerationEvent):
    part: int = strawberry.field(description="The number of the part.")
    call_id: strawberry.ID = strawberry.field(description="The call this answers.")
    content: str = strawberry.field(description="The answer.")
    is_error: bool = strawberry.field(description="Whether the tool failed.")


@strawberry.type(description="The answer is complete. Nothing follows.")
class GenerationCompleted(GenerationEvent):
    finish_reason: FinishReason | None = strawberry.field(description="Why the model ended.")
    usage: Usage | None = strawberry.field(description="What it used.")


@strawberry.type(description="The answer was stopped; what was said is kept. Nothing follows.")
class GenerationCancelled(GenerationEvent):
    usage: Usage | None = strawberry.field(description="What it used.")


@strawberry.type(description="The answer could not be written. Nothing follows.")
class GenerationFailed(GenerationEvent):
    error: GenerationError = strawberry.field(description="Why.")
    usage: Usage | None = strawberry.field(description="What it used.")


@strawberry.type(
    description="The whole generation so far: replace all content with that of `generation`."
)
class GenerationSnapshot(GenerationEvent):
    generation: Generation = strawberry.field(description="The generation as of this event.")


KINDS: dict[str, type[GenerationEvent]] = {
    EventType.QUEUED: GenerationQueued,
    EventType.STARTED: GenerationStarted,
    EventType.RESTARTED: GenerationRestarted,
    EventType.RESUMED: GenerationResumed,
    EventType.TEXT_DELTA: GenerationTextDelta,
    EventType.REASONING_DELTA: GenerationReasoningDelta,
    EventType.TOOL_CALL: GenerationToolCall,
    EventType.TOOL_RESULT: GenerationToolResult,
    EventType.COMPLETED: GenerationCompleted,
    EventType.CANCELLED: GenerationCancelled,
    EventType.FAILED: GenerationFailed,
    EventType.SNAPSHOT: GenerationSnapshot,
}

_READ: dict[str, Callable[[dict[str, Any]], Any]] = {
    "finish_reason": lambda data: finish_reason(data["finish_reason"]),
    "usage": lambda data: usage_of(data["usage"]),
    "error": error_of,
    "is_error": lambda data: bool(data.get("is_error")),
    "generation": Generation.of_snapshot,
}
"""How a field is read from the data of an event, where it is not simply there under its name."""

_COMMON = [field.name for field in dataclasses.fields(cast("Any", GenerationEvent))]
_READERS = {
    kind: [
        (field.name, _READ.get(field.name, itemgetter(field.name)))
        for field in dataclasses.fields(cast("Any", told))
        if field.name not in _COMMON
    ]
    for kind, told in KINDS.items()
}


def generation_event(
    generation_id: str, event: Event, cursor: str | None = None
) -> GenerationEvent | None:
    """An event as the graph tells it; None for one of a kind that a newer server wrote. Its cursor is its number where none is given."""
    kind = KINDS.get(event.type)
    if kind is None:
        return None
    data = orjson.loads(event.data)
    own = {name: read(data) for name, read in _READERS[event.type]}
    return kind(
        cursor=cursor or str(event.seq),
        seq=event.seq,
        generation_id=strawberry.ID(generation_id),
        **own,
    )
