"""Subscriptions: resumable streams, as batches of events (see `Operations`)."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any

import strawberry

from server.changes.follower import ChangeEvent
from server.cursors import parse_seq
from server.graph.change_events import ConversationsEvent, change_event, change_event_key
from server.graph.context import Info
from server.graph.encoding import EventBatch
from server.graph.events import ConversationEvent, GenerationEvent, generation_event
from server.stream.events import Event
from server.verbs import changes, generations

AfterChange = Annotated[
    str | None,
    strawberry.argument(
        description="The `cursor` of the last event seen. If omitted, the stream starts with the "
        "current state."
    ),
]
AnId = Annotated[strawberry.ID, strawberry.argument(description="The id.")]
After = Annotated[
    str | None,
    strawberry.argument(
        description="The `cursor` of the last event seen. If omitted, the stream starts with the "
        "first event."
    ),
]
FromSnapshot = Annotated[
    bool,
    strawberry.argument(
        description="Starts with the content so far instead of the events that led to it; "
        "`after` is ignored."
    ),
]


@strawberry.type(description="Streams of events.")
class Subscription:
    @strawberry.subscription(
        description="The events of a generation: past ones first, then live ones, up to its end. "
        "Completes at once for a reader that has seen the terminal event.",
        graphql_type=GenerationEvent,
    )
    async def generation_events(
        self,
        info: Info,
        id: AnId,
        after: After = None,
        snapshot: FromSnapshot = False,  # noqa: FBT002  arguments are named in GraphQL
    ) -> AsyncGenerator[EventBatch[Event] | None, None]:
        batches = await generations.follow(
            info.context.services,
            info.context.caller,
            id,
            after_seq=0 if snapshot else parse_seq(after),
            snapshot=snapshot,
        )
        if batches is None:
            return
        present = partial(generation_event, id)
        async with aclosing(batches):
            async for batch in batches:
                yield EventBatch(batch.events, present, batch) if batch else None

    @strawberry.subscription(
        description="One conversation and its active answers, until the conversation is deleted.",
        graphql_type=ConversationEvent,
    )
    async def conversation_events(
        self, info: Info, id: AnId, after: AfterChange = None
    ) -> AsyncGenerator[EventBatch[ChangeEvent] | None, None]:
        async with aclosing(_changes(info, after, conversation_id=id, lists=False)) as batches:
            async for batch in batches:
                yield batch

    @strawberry.subscription(
        description="Changes to the account's list of conversations.",
        graphql_type=ConversationsEvent,
    )
    async def conversations_changed(
        self, info: Info, after: AfterChange = None
    ) -> AsyncGenerator[EventBatch[ChangeEvent] | None, None]:
        async with aclosing(_changes(info, after)) as batches:
            async for batch in batches:
                yield batch


async def _changes(
    info: Info, after: str | None, **scope: Any
) -> AsyncGenerator[EventBatch[ChangeEvent] | None, None]:
    context = info.context
    batches = await changes.follow(context.services, context.caller, after=after, **scope)
    async with aclosing(batches):
        async for events in batches:
            yield EventBatch(events, change_event, None, change_event_key) if events else None
