"""Readers that follow an answer while the test does something to the installation."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.client import Client, Event, check_agreement, check_law
from tests.fault_table import note_test
from tests.waiting import condition


@asynccontextmanager
async def reading(
    client: Client, sent: dict[str, Any], readers: int = 3, urls: list[str] | None = None
) -> AsyncIterator[list[list[Event]]]:
    """Follow an answer with several readers; after the block they have read it to its end.

    Readers that are disconnected resume at the next of `urls`.
    """
    seen: list[list[Event]] = [[] for _ in range(readers)]
    async with asyncio.TaskGroup() as tasks:
        for events in seen:
            tasks.create_task(client.read_through(sent["generation_id"], events, urls))
        yield seen


async def some_tokens(seen: list[list[Event]], count: int = 20) -> None:
    """Wait until every reader has more than `count` events."""
    await condition(lambda: all(len(events) > count for events in seen))


async def check_all(
    client: Client, sent: dict[str, Any], seen: list[list[Event]]
) -> dict[str, Any]:
    """Check every reader, a late one, and that they agree; the settled snapshot."""
    snapshot = await client.snapshot(sent["generation_id"])
    late = await client.read_through(sent["generation_id"])
    for events in [*seen, late]:
        check_law(events, snapshot)
        assert events[0].seq == 1
    check_agreement([*seen, late])
    note_test(seen)
    return snapshot


def types_of(events: list[Event]) -> set[str]:
    return {event.type for event in events}
