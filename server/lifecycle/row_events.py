"""Events that are pure functions of a generation's row: its first, its last, and its snapshot.

Any process that reads the row makes the same bytes.
"""

from collections.abc import Sequence
from typing import Any, Literal, cast

from typing_extensions import TypedDict

from server.history.database import Database
from server.history.generations import Written, settled_generations
from server.history.tables import Generation
from server.parts import joined_text
from server.stream.events import (
    FIRST_SEQ,
    Event,
    EventType,
    last_seq_of_lost_log,
    make_event,
    make_event_of_row,
)
from server.stream.feed import End, Ends
from server.times import optional_rfc3339, rfc3339

StatusWord = Literal["queued", "running", "completed", "cancelled", "failed"]


class GenerationError(TypedDict):
    """Why a generation failed."""

    code: str
    message: str
    retryable: bool


class Context(TypedDict):
    """How much of the conversation the model was sent."""

    messages_left_out: int


class Part(TypedDict):
    """A content part; its other keys depend on `type`."""

    type: Literal["text", "reasoning", "tool_call", "tool_result", "file"]


class Snapshot(TypedDict):
    """A generation as of event `seq`."""

    id: str
    conversation_id: str
    question_id: str
    message_id: str
    model: str
    status: StatusWord
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


def snapshot_data(generation: Generation, written: Written | None = None) -> Snapshot:
    """A generation with the content that is stored, or with `written`, which may be newer."""
    parts, seq = written or (generation.parts, generation.seq)
    content, error = cast("list[Part]", parts), cast("GenerationError | None", generation.error)
    return {
        "id": generation.id,
        "conversation_id": generation.conversation_id,
        "question_id": generation.question_id,
        "message_id": generation.message_id,
        "model": generation.model,
        "status": generation.status.value,
        "attempt": generation.attempt,
        "seq": seq,
        "content": content,
        "text": joined_text(parts),
        "finish_reason": generation.finish_reason,
        "usage": generation.usage,
        "error": error,
        "context": {"messages_left_out": generation.messages_left_out},
        "created_at": rfc3339(generation.created_at),
        "started_at": optional_rfc3339(generation.started_at),
        "first_token_at": optional_rfc3339(generation.first_token_at),
        "finished_at": optional_rfc3339(generation.finished_at),
    }


def queued_event(generation: Generation) -> Event:
    """The first event of an answer."""
    data = {
        "generation_id": generation.id,
        "message_id": generation.message_id,
        "question_id": generation.question_id,
        "conversation_id": generation.conversation_id,
        "model": generation.model,
    }
    return make_event_of_row(FIRST_SEQ, EventType.QUEUED, data)


def snapshot_event(generation: Generation, written: Written) -> Event:
    """The first event of a reader that requests a snapshot.

    The snapshot of a settled answer is numbered just before its terminal event, which follows.
    """
    seq = written.seq - 1 if generation.status.terminal else written.seq
    return make_event(seq, EventType.SNAPSHOT, dict(snapshot_data(generation, written)))


def end_of(generation: Generation) -> End:
    """The terminal event of a settled answer, and the snapshot that precedes it."""
    type = EventType(generation.status)
    match type:
        case EventType.COMPLETED:
            data = {"finish_reason": generation.finish_reason, "usage": generation.usage}
        case EventType.CANCELLED:
            data = {"usage": generation.usage}
        case _:
            data = {**(generation.error or {}), "usage": generation.usage}
    terminal = make_event_of_row(generation.seq, type, data)
    content = dict(snapshot_data(generation))
    return End(make_event_of_row(generation.seq - 1, EventType.SNAPSHOT, content), terminal)


def ends_in(database: Database) -> Ends:
    """A function that looks up the ends of generations that are settled."""

    async def ends(generation_ids: Sequence[str]) -> dict[str, End]:
        settled = await database.read(settled_generations, generation_ids)
        return {generation.id: end_of(generation) for generation in settled}

    return ends


def seq_of_unopened(generation: Generation) -> int:
    """The number before the terminal event of an answer whose last attempt did not open the log.

    It is higher than any number that an earlier attempt can have used. If there is content, one
    number is left for its snapshot.
    """
    seq = max(generation.seq, last_seq_of_lost_log(generation.attempt))
    return seq + 1 if generation.parts else seq
