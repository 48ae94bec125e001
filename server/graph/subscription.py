"""Subscriptions: streams that go on where their reader left off. What they give are batches of events, see `Operations`."""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Annotated

import strawberry

from server.errors import InvalidCursor
from server.generate.endings import queued_event
from server.generate.reading import written_so_far
from server.graph.context import Info
from server.graph.encoding import Told
from server.graph.events import ConversationEvent, GenerationEvent, generation_event
from server.graph.page_events import ConversationsEvent, page_event, page_event_key
from server.history.generations import readable_generation
from server.history.generations import snapshot as snapshot_of
from server.history.pages import Scope
from server.pages.cursor import read_cursor
from server.pages.following import CONVERSATION_REMOVED, PageEvent
from server.stream.events import Event, EventType, make_event
from server.stream.follow import follow

_MARK = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)

AfterPage = Annotated[
    str | None,
    strawberry.argument(
        description="`cursor` of the last event that was seen; from what there is now when absent."
    ),
]
AnId = Annotated[strawberry.ID, strawberry.argument(description="Its id.")]
After = Annotated[
    str | None,
    strawberry.argument(
        description="`cursor` of the last event that was seen; from the start when absent."
    ),
]
FromSnapshot = Annotated[
    bool,
    strawberry.argument(
        description="Begin with the whole content so far instead of the events that made it; `after` is ignored."
    ),
]


@strawberry.type(description="What can be followed.")
class Subscription:
    @strawberry.subscription(
        description="The events of a generation: past ones first, then live, until its end. Who has seen the end is told so at once.",
        graphql_type=GenerationEvent,
    )
    async def generation_events(
        self,
        info: Info,
        id: AnId,
        after: After = None,
        snapshot: FromSnapshot = False,  # noqa: FBT002  arguments are named in GraphQL
    ) -> AsyncGenerator[Told[Event] | None, None]:
        context, resources = info.context, info.context.resources
        mark = _mark(after) if after and not snapshot else 0
        generation = await resources.database.read(
            readable_generation, id, context.caller.account_id
        )
        tell = partial(generation_event, generation.id)
        if snapshot:
            written = await written_so_far(
                resources.redis, resources.settings.redis.key_prefix, generation
            )
            mark = written.seq - 1 if generation.status.terminal else written.seq
            yield Told(
                [make_event(mark, EventType.SNAPSHOT, snapshot_of(generation, written))], tell, None
            )
        elif generation.status.terminal and mark >= generation.seq:
            if mark > generation.seq:
                raise InvalidCursor(
                    f"This answer ended with event {generation.seq}; {mark} is beyond it."
                )
            return
        async with aclosing(
            follow(context.feeds, generation.id, queued_event(generation), mark)
        ) as batches:
            async for batch in batches:
                yield Told(batch.events, tell, batch) if batch else None

    @strawberry.subscription(
        description="One conversation, and the answers that are being written in it. It goes on until the conversation is deleted.",
        graphql_type=ConversationEvent,
    )
    async def conversation_events(
        self, info: Info, id: AnId, after: AfterPage = None
    ) -> AsyncGenerator[Told[PageEvent] | None, None]:
        scope = Scope(info.context.caller.account_id, id, lists=False)
        async with aclosing(_page(info, scope, after)) as told:
            async for events in told:
                yield events
                if events and any(event.type == CONVERSATION_REMOVED for event in events.events):
                    return

    @strawberry.subscription(
        description="What changes in the account's list of conversations: in their titles, pins, branches, and in what is written in them.",
        graphql_type=ConversationsEvent,
    )
    async def conversations_changed(
        self, info: Info, after: AfterPage = None
    ) -> AsyncGenerator[Told[PageEvent] | None, None]:
        async with aclosing(_page(info, Scope(info.context.caller.account_id), after)) as told:
            async for events in told:
                yield events


async def _page(
    info: Info, scope: Scope, after: str | None
) -> AsyncGenerator[Told[PageEvent] | None, None]:
    """What the change feed tells of a scope."""
    follower = await info.context.pages.open(scope, read_cursor(after) if after else None)
    async with aclosing(follower.follow()) as batches:
        async for events in batches:
            yield Told(events, page_event, None, page_event_key) if events else None


def _mark(text: str) -> int:
    """The number in a cursor; raises InvalidCursor."""
    if not _MARK.fullmatch(text):
        raise InvalidCursor("after: this is not a cursor that this server gave out.")
    return int(text)
