"""Following changes: an account's list of conversations, one conversation, or both."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from time import monotonic
from typing import Final

from server.changes.cursor import parse_cursor
from server.changes.follower import ChangeEvent
from server.history.feed import ConversationChange, Scope
from server.identity.callers import Caller
from server.resources import Services

GATHER_S: Final = 0.3
"""How long a response that is to end soon waits for further events after the first."""


async def follow(
    services: Services,
    caller: Caller,
    *,
    conversation_id: str | None = None,
    lists: bool = True,
    after: str | None = None,
) -> AsyncGenerator[list[ChangeEvent] | None, None]:
    """Every change after a cursor, in order and once; without a cursor, first the current state.

    Without `lists`, it ends once the conversation has been deleted. None stands for a heartbeat.
    Raises InvalidCursor, and NotFound for the conversation.
    """
    scope = Scope(caller.account_id, conversation_id, lists)
    follower = await services.changes.open(scope, parse_cursor(after) if after else None)
    return follower.follow() if lists else _until_removed(follower.follow())


async def for_a_while(
    batches: AsyncGenerator[list[ChangeEvent] | None, None], wait_s: float
) -> AsyncGenerator[list[ChangeEvent] | None, None]:
    """Ends these batches `GATHER_S` after the first event, or after `wait_s`."""
    ends_at = monotonic() + wait_s
    async with aclosing(batches):
        while True:
            try:
                async with asyncio.timeout(max(0.0, ends_at - monotonic())):
                    events = await anext(batches)
            except (TimeoutError, StopAsyncIteration):
                return
            yield events
            if events:
                ends_at = min(ends_at, monotonic() + GATHER_S)


async def _until_removed(
    batches: AsyncGenerator[list[ChangeEvent] | None, None],
) -> AsyncGenerator[list[ChangeEvent] | None, None]:
    async with aclosing(batches):
        async for events in batches:
            yield events
            if any(_is_removal(event) for event in events or ()):
                return


def _is_removal(event: ChangeEvent) -> bool:
    return isinstance(event.what, ConversationChange) and event.what.row is None
