"""Following: one reader's way through one answer, from its mark to the end."""

import asyncio
from collections.abc import AsyncGenerator

from server.stream.events import Event
from server.stream.feed import Batch, Feeds


async def follow(
    feeds: Feeds, generation_id: str, queued: Event, mark: int
) -> AsyncGenerator[Batch | None, None]:
    """Every event after `mark`, in order and once, in batches of at most 64 KiB, until the terminal one; None where a heartbeat is due.

    Ends early, between two events, when this process stops (`Feeds.stop`). The same Batch object goes to every reader that stands at the
    same place, so what a dialect makes of it is made once.
    """
    loop = asyncio.get_running_loop()
    with feeds.feed(generation_id, queued) as feed:
        while not feeds.stopping:
            batch = feed.after(mark)
            if batch is None and feed.is_behind(mark):
                batch = await feeds.page(generation_id, mark)
                if batch is None:
                    continue  # there may have been news meanwhile
            if batch is not None:
                yield batch
                mark = batch.last.seq
                if batch.last.terminal:
                    return
            elif feed.ended:
                return  # the mark is at the end, or beyond it
            else:
                await feed.news(loop)
                if feed.after(mark) is None and not feeds.stopping:
                    yield None
