"""The events of a generation in the graph. One field name has one type in all of them."""

import dataclasses
from collections.abc import Callable
from operator import itemgetter
from typing import Any, cast

import orjson
import strawberry

from server.graph.content import GenerationError, Usage, error_of, usage_of
from server.graph.scalars import FinishReason, finish_reason
from server.graph.types import Generation
from server.lifecycle.row_events import Snapshot
from server.stream.events import Event, EventType


@strawberry.interface(
    description="One event of a conversation. Kinds of events may be added: select `cursor` and "
    "`__typename` of every event."
)
class ConversationEvent:
    cursor: str = strawberry.field(
        description="The stream resumes after this event when this is given as `after`."
    )


@strawberry.interface(
    description="One event of a generation. Kinds of events may be added: select `cursor` and "
    "`__typename` of every event."
)
class GenerationEvent(ConversationEvent):
    seq: int = strawberry.field(
        description="Its number. Numbers are consecutive, but restarts and snapshots may skip some."
    )
    generation_id: strawberry.ID = strawberry.field(description="Its generation.")


@strawberry.type(description="The answer was requested and waits for a worker.")
class GenerationQueued(GenerationEvent):
    conversation_id: strawberry.ID = strawberry.field(description="The conversation.")
    question_id: strawberry.ID = strawberry.field(description="The question.")
    message_id: strawberry.ID = strawberry.field(description="The answer.")
    model: str = strawberry.field(description="The id of the model.")


@strawberry.type(description="A worker has claimed the generation.")
class GenerationStarted(GenerationEvent):
    attempt: int = strawberry.field(description="The number of the attempt.")


@strawberry.type(description="The answer starts over: discard all content.")
class GenerationRestarted(GenerationEvent):
    attempt: int = strawberry.field(description="The number of the attempt.")
    reason: str = strawberry.field(description="The reason, e.g. `worker_lost`.")


@strawberry.type(description="Another worker continues the answer: keep all content.")
class GenerationResumed(GenerationEvent):
    attempt: int = strawberry.field(description="The number of the attempt.")
    reason: str = strawberry.field(description="The reason, e.g. `handed_over`.")


@strawberry.type(description="More text. Deltas may be joined under load, so do not count them.")
class GenerationTextDelta(GenerationEvent):
    part: int = strawberry.field(
        description="The number of the part it is appended to; a new one opens a part."
    )
    text: str = strawberry.field(description="The text to append.")


@strawberry.type(description="More reasoning.")
class GenerationReasoningDelta(GenerationEvent):
    part: int = strawberry.field(
        description="The number of the part it is appended to; a new one opens a part."
    )
    text: str = strawberry.field(description="The text to append.")


@strawberry.type(description="The model calls a tool. This is a whole part.")
class GenerationToolCall(GenerationEvent):
    part: int = strawberry.field(description="The number of the part.")
    call_id: strawberry.ID = strawberry.field(description="The id of this call.")
    name: str = strawberry.field(description="The name of the tool.")
    arguments: str = strawberry.field(description="The arguments: JSON, as the model wrote it.")


@strawberry.type(description="The result of a tool. This is a whole part.")
class GenerationToolResult(GenerationEvent):
    part: int = strawberry.field(description="The number of the part.")
    call_id: strawberry.ID = strawberry.field(description="The id of the call.")
    content: str = strawberry.field(description="The result.")
    is_error: bool = strawberry.field(description="Whether the tool failed.")


@strawberry.type(description="The answer is complete. This is the last event.")
class GenerationCompleted(GenerationEvent):
    finish_reason: FinishReason | None = strawberry.field(description="Why the model stopped.")
    usage: Usage | None = strawberry.field(description="The tokens used.")


@strawberry.type(
    description="The answer was cancelled and keeps its content. This is the last event."
)
class GenerationCancelled(GenerationEvent):
    usage: Usage | None = strawberry.field(description="The tokens used.")


@strawberry.type(description="The answer failed. This is the last event.")
class GenerationFailed(GenerationEvent):
    error: GenerationError = strawberry.field(description="The reason.")
    usage: Usage | None = strawberry.field(description="The tokens used.")


@strawberry.type(
    description="The generation so far: replace all content with that of `generation`."
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
    "generation": lambda data: Generation.of_snapshot(cast("Snapshot", data)),
}
"""How fields are read that are not simply a value under their name."""

_COMMON = [field.name for field in dataclasses.fields(cast("Any", GenerationEvent))]
_READERS = {
    kind: [
        (field.name, _READ.get(field.name, itemgetter(field.name)))
        for field in dataclasses.fields(cast("Any", of_kind))
        if field.name not in _COMMON
    ]
    for kind, of_kind in KINDS.items()
}


def generation_event(
    generation_id: str, event: Event, cursor: str | None = None
) -> GenerationEvent | None:
    """An event in the graph; None for a kind that a newer server wrote.

    Its cursor is its number, unless one is given.
    """
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
