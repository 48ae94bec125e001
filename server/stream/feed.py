"""Feeds: one per answer that is followed in this process, shared by all its readers.

A feed receives events from the tail. It reads the log where the tail may have missed some: at the
start, at a gap, after a reconnection, and when it was quiet for a second. Its end never depends on
a published message: when a feed is quiet and its row is settled, the log is closed and read to its
end; without a log, readers get a snapshot of the row.

A reader follows a feed from its cursor to the end of the answer (`follow`, `FeedReader`). What the
feed has dropped, it reads from the log.
"""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from server.errors import TidemarkError
from server.logs import log
from server.loops import DueLoop
from server.stream.events import Event, decode_event
from server.stream.heartbeat import Heartbeat
from server.stream.log import LogKeys, close_logs, log_keys, read_logs
from server.stream.tail import Listener, Tail

KEPT_BYTES: Final = 1 << 20
BATCH_BYTES: Final = 64 * 1024
PAGE_EVENTS: Final = 500
CHECK_EVERY_S: Final = 1.0
CHECKED_AT_ONCE: Final = 500
ENDS_AT_ONCE: Final = 50
"""How many ended answers are in memory at a time, each with all of its content."""

BATCHES_MAX: Final = 64


class End(NamedTuple):
    """The last events of a settled generation: its snapshot, and the terminal event."""

    snapshot: Event
    terminal: Event


Ends = Callable[[Sequence[str]], Awaitable[dict[str, End]]]
"""Given generation ids, the ends of those that are settled, from SQL."""


class Batch:
    """Consecutive events, shared by all readers with the same cursor, and their encoded frames.

    `encode_once` is for the few encoders that live as long as the process. Encoders with a shorter
    life cache their own results, with the batch as a weak key.
    """

    __slots__ = ("__weakref__", "_encoded", "events")

    def __init__(self, events: list[Event]) -> None:
        self.events = events
        self._encoded: dict[Callable[[list[Event]], bytes], bytes] = {}

    @property
    def last(self) -> Event:
        return self.events[-1]

    def encode_once(self, encode: Callable[[list[Event]], bytes]) -> bytes:
        """`encode(events)`, computed once for all readers; `encode` is a module's function."""
        frames = self._encoded.get(encode)
        if frames is None:
            frames = self._encoded[encode] = encode(self.events)
        return frames


class Feed:
    """The events of one answer that this process has; the last 1 MiB is kept."""

    def __init__(self, keys: LogKeys, queued: Event) -> None:
        self.keys = keys
        self.readers = 0
        self._waiting: set[asyncio.Future[None]] = set()
        self.wake_callbacks: set[Callable[[], None]] = set()
        """Called when waiting readers are woken; for readers that wait for more than one feed."""
        self.quiet = False  # nothing was added since the last check
        self.queued = queued
        self._events = [queued]
        self._seqs = [queued.seq]
        self._kept_bytes = 0
        self._dropped = 0  # the number of the last event that was dropped
        self._batches: dict[int, Batch] = {}

    @property
    def seq(self) -> int:
        """The number of the last event."""
        return self._seqs[-1]

    @property
    def ended(self) -> bool:
        return self._events[-1].terminal

    def add(self, events: list[Event]) -> None:
        """Appends events; those that the feed already has are skipped."""
        fresh = [event for event in events if event.seq > self.seq]
        if not fresh or self.ended:
            return
        self._events += fresh
        self._seqs += [event.seq for event in fresh]
        self._kept_bytes += sum(len(event.data) for event in fresh)
        self._drop_oldest()
        self.quiet = False
        self._batches.clear()
        self.wake()

    def end(self, end: End) -> None:
        """Ends this feed from the row, because the log is gone: readers get a snapshot."""
        if end.terminal.seq > self.seq + 1 and not self.ended:
            self._events, self._dropped = [self.queued, end.snapshot], 0
            self._seqs = [event.seq for event in self._events]
            self._kept_bytes = 0  # the snapshot stays, whatever its size: the log does not have it
        self.add([end.terminal])

    def wake(self) -> None:
        """Wakes every waiting reader."""
        waiting, self._waiting = self._waiting, set()
        for reader in waiting:
            if not reader.done():
                reader.set_result(None)
        for wake in self.wake_callbacks:
            wake()

    def next_wake(self, loop: asyncio.AbstractEventLoop) -> "asyncio.Future[None]":
        """A future that is done when readers are woken.

        It costs a third less than an asyncio.Event.
        """
        reader = loop.create_future()
        self._waiting.add(reader)
        return reader

    def forget(self, wake: "asyncio.Future[None]") -> None:
        """Drops a future of `next_wake` that nobody waits for any more."""
        self._waiting.discard(wake)

    def after(self, after_seq: int) -> Batch | None:
        """The next events after `after_seq`; None if there are none or they were dropped."""
        if after_seq < self._dropped or after_seq >= self.seq:
            return None
        batch = self._batches.get(after_seq)
        if batch is None:
            if len(self._batches) >= BATCHES_MAX:
                self._batches.clear()
            first = bisect_right(self._seqs, after_seq)
            batch = self._batches[after_seq] = Batch(
                self._events[first : _end_of_write(self._events, first)]
            )
        return batch

    def is_behind(self, after_seq: int) -> bool:
        """Whether a reader at `after_seq` needs events that only the log still has."""
        return after_seq < self._dropped

    @property
    def page_events(self) -> int:
        """About how many events of this answer fit into one write."""
        return max(1, min(PAGE_EVENTS, BATCH_BYTES * len(self._events) // max(self._kept_bytes, 1)))

    def _drop_oldest(self) -> None:
        drop = 0
        while self._kept_bytes > KEPT_BYTES and drop < len(self._events) - 1:
            self._kept_bytes -= len(self._events[drop].data)
            drop += 1
        if drop:
            self._dropped = self._seqs[drop - 1]
            del self._events[:drop], self._seqs[:drop]


class Feeds:
    """All feeds of this process."""

    def __init__(
        self, redis: Redis, tail: Tail, ends: Ends, *, key_prefix: str, retention_s: float
    ) -> None:
        self.stopping = False
        self._redis, self._tail, self._ends = redis, tail, ends
        self._key_prefix, self._retention_s = key_prefix, retention_s
        self._feeds: dict[str, Feed] = {}
        self._loop = DueLoop(
            self._quiet_ids, self._read, every_s=CHECK_EVERY_S, at_once=CHECKED_AT_ONCE
        )
        self._maybe_ended: set[str] = set()
        self._end_due = asyncio.Event()

    def __len__(self) -> int:
        return len(self._feeds)

    @contextmanager
    def feed(self, generation_id: str, queued: Event) -> Iterator[Feed]:
        """The feed of an answer, starting with `queued`. All readers in this process share it."""
        feed = self._feeds.get(generation_id)
        if feed is None:
            feed = self._feeds[generation_id] = Feed(
                log_keys(self._key_prefix, generation_id), queued
            )
            self._tail.listen(
                feed.keys.channel,
                Listener(
                    lambda: self._loop.check_soon(generation_id),
                    lambda data: self._receive(generation_id, data),
                ),
            )
        feed.readers += 1
        try:
            yield feed
        finally:
            feed.readers -= 1
            if feed.readers == 0:
                del self._feeds[generation_id]
                self._tail.leave(feed.keys.channel)

    async def read_page(self, generation_id: str, after_seq: int) -> Batch | None:
        """Reads the next events after `after_seq` from the log, for a reader behind the feed.

        None if that fails; the caller tries again after a pause.
        """
        feed = self._feeds[generation_id]
        if after_seq < feed.queued.seq:
            return Batch([feed.queued])  # it is in no log
        try:
            [events] = await read_logs(self._redis, [(feed.keys, after_seq)], feed.page_events)
            if (
                not events
                and feed.ended
                and (end := (await self._ends([generation_id])).get(generation_id))
            ):
                events = [end.snapshot, end.terminal]
        except (TidemarkError, RedisError) as error:
            log.warning("page_read_failed", error=str(error))
            events = []
        return Batch(events[: _end_of_write(events, 0)]) if events else None

    def stop(self) -> None:
        """Ends every stream of this process between two events."""
        self.stopping = True
        for feed in self._feeds.values():
            feed.wake()

    async def run(self) -> None:
        """Reads the logs of feeds that are due or have gone quiet, until cancelled."""
        await self._loop.run()

    def _quiet_ids(self) -> set[str]:
        """The ids of feeds to which nothing was added since the last call."""
        quiet = {id for id, feed in self._feeds.items() if feed.quiet and not feed.ended}
        for feed in self._feeds.values():
            feed.quiet = True
        return quiet

    async def _read(self, ids: list[str]) -> None:
        """Reads the logs of these feeds; those without new events may have ended."""
        following = {id: feed for id in ids if (feed := self._feeds.get(id))}
        try:
            logs = await read_logs(
                self._redis, [(feed.keys, feed.seq) for feed in following.values()], PAGE_EVENTS
            )
        except RedisError as error:
            log.warning("redis_unavailable", doing="follow", error=str(error))
            logs = [[] for _ in following]
        for (id, feed), events in zip(following.items(), logs, strict=True):
            feed.add(events)
            if len(events) == PAGE_EVENTS:
                self._loop.check_soon(id)
        quiet = [
            id
            for (id, feed), events in zip(following.items(), logs, strict=True)
            if not events and not feed.ended
        ]
        self._maybe_ended.update(quiet)
        if self._maybe_ended:
            self._end_due.set()

    async def end(self) -> None:
        """Ends feeds whose rows are settled, until cancelled.

        Separate from `run`, so that a database that hangs delays no events.
        """
        while True:
            await self._end_due.wait()
            self._end_due.clear()
            ids, self._maybe_ended = list(self._maybe_ended), set()
            try:
                for start in range(0, len(ids), ENDS_AT_ONCE):
                    await self._end_all(await self._ends(ids[start : start + ENDS_AT_ONCE]))
            except TidemarkError as error:
                log.warning("end_lookup_failed", error=str(error))

    async def _end_all(self, ends: dict[str, End]) -> None:
        """Closes the logs of feeds and reads their rest; without a log or Redis, uses the row."""
        ending = [
            (id, feed, end)
            for id, end in ends.items()
            if (feed := self._feeds.get(id)) is not None and not feed.ended
        ]
        logs = await self._close_and_read([(feed, end.terminal) for _id, feed, end in ending])
        for (id, feed, end), events in zip(ending, logs, strict=True):
            if events:
                feed.add(events)
                self._loop.check_soon(id)
            else:
                feed.end(end)

    async def _close_and_read(self, ending: list[tuple[Feed, Event]]) -> list[list[Event]]:
        """Closes logs, and reads the events that each feed lacks; none where that fails."""
        if not ending:
            return []
        try:
            closed = await close_logs(
                self._redis, [(feed.keys, terminal) for feed, terminal in ending], self._retention_s
            )
            readable = [
                feed for (feed, _), done in zip(ending, closed, strict=True) if done is True
            ]
            logs = await read_logs(
                self._redis, [(feed.keys, feed.seq) for feed in readable], PAGE_EVENTS
            )
        except RedisError as error:
            log.warning("redis_unavailable", doing="end", error=str(error))
            return [[] for _ in ending]
        read = dict(zip(readable, logs, strict=True))
        return [read.get(feed, []) for feed, _ in ending]

    def _receive(self, generation_id: str, data: bytes) -> None:
        if (feed := self._feeds.get(generation_id)) is None:
            return
        try:
            events = [decode_event(line) for line in data.split(b"\n")]
        except ValueError:
            self._loop.check_soon(generation_id)
            return
        if events[0].seq <= feed.seq + 1 and _consecutive(events):
            feed.add(events)
        else:
            self._loop.check_soon(generation_id)  # a gap or a jump


class FeedReader:
    """One reader's position in the feed of one answer; valid while `Feeds.feed` keeps the feed.

    `after_seq` is the number of the last event it returned. For readers that wait for more than one
    feed: call `next` until it returns None, then wait to be woken (`Feed.wake_callbacks`), or for
    CHECK_EVERY_S if it is behind.
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
        and `is_behind` is still true: nothing wakes this reader, so call it again after a pause.
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
    news = loop.create_future()

    def wake() -> None:
        if not news.done():
            news.set_result(None)

    with feeds.feed(generation_id, queued) as feed, Heartbeat(wake) as heartbeat:
        reader = FeedReader(feeds, generation_id, feed, after_seq)
        while not feeds.stopping:
            if batch := await reader.next():
                heartbeat.sent()
                yield batch
                if batch.last.terminal:
                    return
            elif reader.ended:
                return
            elif heartbeat.due:
                heartbeat.sent()
                yield None
            elif reader.is_behind:
                await asyncio.sleep(CHECK_EVERY_S)
            else:
                news = feed.next_wake(loop)
                try:
                    await news
                finally:
                    feed.forget(news)


def _end_of_write(events: list[Event], first: int) -> int:
    """The index after the events that are sent in one write: 64 KiB, or one larger event."""
    last, size = first, 0
    while last < len(events) and (size == 0 or size + len(events[last].data) <= BATCH_BYTES):
        size += len(events[last].data) + 64
        last += 1
    return last


def _consecutive(events: list[Event]) -> bool:
    return events[-1].seq - events[0].seq == len(events) - 1
