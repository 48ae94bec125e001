"""Following a change feed: an account's list, one conversation, and its active answers."""

from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from typing import NamedTuple

from redis.asyncio import Redis

from server.changes.cursor import Cursor
from server.changes.watches import Reader, Watches
from server.errors import NotFound
from server.history.database import Database
from server.history.feed import (
    AFTER_ALL_ROWS,
    Change,
    FeedPage,
    FeedPosition,
    MessageChange,
    OpenedConversation,
    Scope,
    changes_since,
    open_feed,
)
from server.history.generations import generations_in
from server.history.tables import Generation
from server.lifecycle.row_events import queued_event
from server.lifecycle.written import LiveGeneration, with_content
from server.stream.events import Event
from server.stream.feed import CHECK_EVERY_S, FeedReader, Feeds
from server.stream.heartbeat import Heartbeat

ROWS_PER_BATCH = 50
EARLY_HEARTBEAT_S = 2.0
"""By its absence, the page notices that something on the way holds streams back."""


class Opened(NamedTuple):
    """The initial state, which later events change: the conversation and its active answers."""

    conversation: OpenedConversation | None
    active: list[LiveGeneration]


class Resync(NamedTuple):
    """Too much has changed to send it one by one: the reader has to read the list again."""


class AnswerEvent(NamedTuple):
    """An event of an active answer of the conversation."""

    generation_id: str
    event: Event


class ChangeEvent(NamedTuple):
    """One event of a change feed; the stream resumes after it with `cursor`."""

    cursor: str
    what: Opened | Resync | AnswerEvent | Change


class Changes:
    """Opens change feeds for the readers of this process."""

    def __init__(
        self, feeds: Feeds, watches: Watches, database: Database, redis: Redis, key_prefix: str
    ) -> None:
        self.feeds, self.watches, self.database = feeds, watches, database
        self._redis, self._key_prefix = redis, key_prefix

    async def open(self, scope: Scope, cursor: Cursor | None) -> "Follower":
        """A follower that starts after the cursor, or with the current state; raises NotFound."""
        reopen = cursor is None or cursor.conversation_id != scope.conversation_id
        since = cursor.position if cursor else None
        page = await self.database.read(open_feed, scope, since, reopen=reopen)
        follower = Follower(self, scope, since or FeedPosition(page.change), page)
        if cursor is not None and not page.starts_over and scope.conversation_id is not None:
            ids = list(cursor.after_seqs)
            for generation in await self.database.read(generations_in, scope.conversation_id, ids):
                follower.resume(generation, cursor.after_seqs[generation.id])
        return follower

    async def with_content(self, generations: list[Generation]) -> list[LiveGeneration]:
        """These generations with their content so far."""
        return await with_content(self._redis, self._key_prefix, generations)


class _Answer:
    """A followed answer and the reader's position in it; `stack` closes its feed."""

    def __init__(self, generation: Generation, reader: FeedReader, stack: ExitStack) -> None:
        self.id, self.message_id = generation.id, generation.message_id
        self.reader, self.stack = reader, stack


class Follower:
    """One reader's progress through a change feed. `follow` may be called once."""

    def __init__(
        self, changes: Changes, scope: Scope, position: FeedPosition, page: FeedPage
    ) -> None:
        self._changes, self._scope, self._page = changes, scope, page
        self._position = position
        self._conversation_id = None if page.starts_over else scope.conversation_id
        self._resumed: list[tuple[Generation, int]] = []
        self._reader = Reader()
        self._heartbeat = Heartbeat(self._reader.wake, early_s=EARLY_HEARTBEAT_S)
        self._answers: dict[str, _Answer] = {}
        self._after_seqs: dict[str, int] = {}
        self._seen = page.change
        self._is_deleted = False

    def resume(self, generation: Generation, after_seq: int) -> None:
        """Follows an answer from `after_seq`, unless the reader has seen its end."""
        if not (generation.status.terminal and after_seq >= generation.seq):
            self._resumed.append((generation, after_seq))

    async def follow(self) -> AsyncGenerator[list[ChangeEvent] | None, None]:
        """Every event after the cursor, in order and once; None when a heartbeat is due.

        Ends when the process stops, or when the conversation is deleted among more changes than one
        page holds; a reader that reconnects then gets 404.
        """
        async with aclosing(self._events()) as batches:
            async for batch in batches:
                self._heartbeat.sent()
                yield batch

    async def _events(self) -> AsyncGenerator[list[ChangeEvent] | None, None]:
        watches, scope = self._changes.watches, self._scope
        with (
            ExitStack() as stack,
            watches.watch(scope.account_id, self._reader) as watch,
            self._heartbeat,
        ):
            stack.callback(self._unfollow_all)
            for generation, after_seq in self._resumed:
                self._follow(generation, after_seq)
            async for events in self._page_events(self._page):
                yield events
            while not (watches.stopping or self._is_deleted):
                if self._heartbeat.due:
                    yield None
                idle = True
                if watch.change > self._seen:
                    page = await self._changes.database.read(changes_since, scope, self._position)
                    self._seen = page.change
                    async for events in self._page_events(page):
                        yield events
                        idle = False
                for answer in list(self._answers.values()):
                    if batch := await self._next(answer):
                        yield batch
                        idle = False
                    elif self._heartbeat.due:
                        yield None
                if idle:
                    await self._wait()

    async def _wait(self) -> None:
        """Waits to be woken; if the log of an answer could not be read, only for a second."""
        behind = any(answer.reader.is_behind for answer in self._answers.values())
        await self._reader.wait(CHECK_EVERY_S if behind else None)

    async def _page_events(self, page: FeedPage) -> AsyncGenerator[list[ChangeEvent] | None, None]:
        """The events of a page; if it has too many changes, the current state."""
        if page.changes is None:
            if not page.starts_over:
                try:
                    page = await self._changes.database.read(
                        open_feed, self._scope, None, reopen=True
                    )
                except NotFound:
                    self._is_deleted = True
                    return
            yield [self._event(Resync())]
        if page.starts_over:
            changes = page.changes or []
            for start in range(0, len(changes), ROWS_PER_BATCH):
                yield [self._row(each) for each in changes[start : start + ROWS_PER_BATCH]]
            yield [await self._open(page)]
            return
        async for events in self._changed(page.changes or []):
            yield events
        if not self._changes.watches.stopping:
            self._position = FeedPosition(page.change, AFTER_ALL_ROWS)

    async def _open(self, page: FeedPage) -> ChangeEvent:
        self._unfollow_all()
        active = await self._changes.with_content(page.opened.active if page.opened else [])
        for generation, written in active:
            self._follow(generation, written.seq)
        self._position = FeedPosition(page.change, AFTER_ALL_ROWS)
        self._conversation_id, self._seen = self._scope.conversation_id, page.change
        return self._event(Opened(page.opened, active))

    async def _changed(
        self, changes: list[Change]
    ) -> AsyncGenerator[list[ChangeEvent] | None, None]:
        """The changed rows. The events of an answer precede its changed row."""
        events: list[ChangeEvent] = []
        for change in changes:
            if isinstance(change, MessageChange) and change.row.generation is not None:
                generation = change.row.generation
                for answer in self._ended_by(generation):
                    if events:
                        yield events
                        events = []
                    async for rest in self._follow_to_end(answer):
                        yield rest
                if self._changes.watches.stopping:
                    return
                if not generation.status.terminal and generation.id not in self._answers:
                    self._follow(generation, 0)
            events.append(self._row(change))
            if len(events) >= ROWS_PER_BATCH:
                yield events
                events = []
        if events:
            yield events

    def _ended_by(self, generation: Generation) -> list[_Answer]:
        """The followed generations of a message that have ended, `generation` being its last."""
        of_message = [
            answer
            for answer in self._answers.values()
            if answer.message_id == generation.message_id
        ]
        return [
            answer
            for answer in of_message
            if answer.id != generation.id or generation.status.terminal
        ]

    async def _follow_to_end(
        self, answer: _Answer
    ) -> AsyncGenerator[list[ChangeEvent] | None, None]:
        while answer.id in self._answers and not self._changes.watches.stopping:
            if events := await self._next(answer):
                yield events
            elif self._heartbeat.due:
                yield None
            elif answer.id in self._answers:
                await self._reader.wait(CHECK_EVERY_S)

    async def _next(self, answer: _Answer) -> list[ChangeEvent]:
        """The next events of an answer, which is unfollowed after the last one."""
        batch = await answer.reader.next()
        if batch is None:
            if answer.reader.ended:
                self._unfollow(answer)
            return []
        return [self._answer_event(answer, event) for event in batch.events]

    def _answer_event(self, answer: _Answer, event: Event) -> ChangeEvent:
        self._after_seqs[answer.id] = event.seq
        if event.terminal:
            self._unfollow(answer)
        return self._event(AnswerEvent(answer.id, event))

    def _follow(self, generation: Generation, after_seq: int) -> None:
        stack = ExitStack()
        feeds = self._changes.feeds
        feed = stack.enter_context(feeds.feed(generation.id, queued_event(generation)))
        feed.wake_callbacks.add(self._reader.wake)
        stack.callback(feed.wake_callbacks.discard, self._reader.wake)
        reader = FeedReader(feeds, generation.id, feed, after_seq)
        self._answers[generation.id] = _Answer(generation, reader, stack)
        self._after_seqs[generation.id] = after_seq

    def _unfollow(self, answer: _Answer) -> None:
        answer.stack.close()
        del self._answers[answer.id], self._after_seqs[answer.id]

    def _unfollow_all(self) -> None:
        for answer in list(self._answers.values()):
            self._unfollow(answer)

    def _row(self, change: Change) -> ChangeEvent:
        self._position = change.position
        return self._event(change)

    def _event(self, what: Opened | Resync | AnswerEvent | Change) -> ChangeEvent:
        return ChangeEvent(
            str(Cursor(self._position, self._conversation_id, self._after_seqs)), what
        )
