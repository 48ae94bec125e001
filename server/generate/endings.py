"""Beginnings and ends: the events that are pure functions of a generation's row."""

from collections.abc import Sequence

from server.history.database import Database
from server.history.generations import settled_generations, snapshot
from server.history.tables import Generation
from server.stream.events import (
    FIRST_SEQ,
    Event,
    EventType,
    last_seq_of_lost_log,
    make_event_of_row,
)
from server.stream.feed import End, Ends


def queued_event(generation: Generation) -> Event:
    """The first event of an answer."""
    return make_event_of_row(
        FIRST_SEQ,
        EventType.QUEUED,
        {
            "generation_id": generation.id,
            "message_id": generation.message_id,
            "question_id": generation.question_id,
            "conversation_id": generation.conversation_id,
            "model": generation.model,
        },
    )


def end_of(generation: Generation) -> End:
    """The last event of a settled answer, and the snapshot that stands in for all the others."""
    type = EventType(generation.status)
    match type:
        case EventType.COMPLETED:
            data = {"finish_reason": generation.finish_reason, "usage": generation.usage}
        case EventType.CANCELLED:
            data = {"usage": generation.usage}
        case _:
            data = {**(generation.error or {}), "usage": generation.usage}
    terminal = make_event_of_row(generation.seq, type, data)
    return End(
        make_event_of_row(generation.seq - 1, EventType.SNAPSHOT, snapshot(generation)), terminal
    )


def ends_in(database: Database) -> Ends:
    """The ends of those of some generations that are settled, for feeds."""

    async def ends(generation_ids: Sequence[str]) -> dict[str, End]:
        return {
            generation.id: end_of(generation)
            for generation in await database.read(settled_generations, generation_ids)
        }

    return ends


def seq_of_unopened(generation: Generation) -> int:
    """The number before the terminal event of an answer whose last attempt did not open its log.

    No earlier attempt can have written it. If there is content, it leaves room for the snapshot.
    """
    seq = max(generation.seq, last_seq_of_lost_log(generation.attempt))
    return seq + 1 if generation.parts else seq
