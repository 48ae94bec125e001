"""Following changes: an account's list of conversations, one conversation, or both."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from server.changes.cursor import parse_cursor
from server.changes.follower import ChangeEvent
from server.history.feed import ConversationChange, Scope
from server.identity.callers import Caller
from server.resources import Services


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
