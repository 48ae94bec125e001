"""Following one answer from a cursor to its end."""

import asyncio
from collections.abc import AsyncGenerator

from server.stream.events import Event
from server.stream.feed import Batch, Feed, Feeds


class FeedReader:
    """One reader's position in the feed of one answer; valid while `Feeds.feed` keeps the feed.

    `after_seq` is the number of the last event it returned. For readers that wait for more than one
    feed: call `next` until it returns None, then wait to be woken (`Feed.wake_callbacks`).
    """

    def __init__(self, feeds: Feeds, generation_id: str, feed: Feed, after_seq: int) -> None:
        self.feed, self.after_seq = feed, after_seq
        self._feeds, self._generation_id = feeds, generation_id

    @property
    def is_behind(self) -> bool:
        """Whether it needs events that only the log still has."""
        return self.feed.is_behind(self.after_seq)

    @property
    def ended(self) -> bool:
        """Whether it has returned the terminal event, or started at or after it."""
        return self.feed.ended and self.after_seq >= self.feed.seq

    async def next(self) -> Batch | None:
        """The next events, at most 64 KiB; None if there are none now. Does not wait for new ones.

        Reads the log when this reader is behind what the feed keeps. If that fails, it returns None
        after a second, and `is_behind` is still true: call it again.
        """
        batch = self.feed.after(self.after_seq)
        if batch is None and self.is_behind:
            batch = await self._feeds.read_page(self._generation_id, self.after_seq)
        if batch is not None:
            self.after_seq = batch.last.seq
        return batch


async def follow(
    feeds: Feeds, generation_id: str, queued: Event, after_seq: int
) -> AsyncGenerator[Batch | None, None]:
    """Every event after `after_seq`, in order and once; None when a heartbeat is due.

    Ends early, between two events, when this process stops (`Feeds.stop`). Readers with the same
    cursor get the same Batch object, so that it is encoded once for all of them.
    """
    loop = asyncio.get_running_loop()
    with feeds.feed(generation_id, queued) as feed:
        reader = FeedReader(feeds, generation_id, feed, after_seq)
        while not feeds.stopping:
            if batch := await reader.next():
                yield batch
                if batch.last.terminal:
                    return
            elif reader.ended:
                return
            elif not reader.is_behind:
                await feed.next_wake(loop)
                if feed.after(reader.after_seq) is None and not feeds.stopping:
                    yield None
