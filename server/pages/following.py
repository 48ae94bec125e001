"""Following a page: the changes of an account's list and of one conversation, and the answers being written in it, as one stream."""

from collections.abc import AsyncGenerator
from contextlib import ExitStack
from typing import Any, NamedTuple

from redis.asyncio import Redis

from server.errors import NotFound
from server.generate.endings import queued_event
from server.generate.reading import all_written_so_far
from server.history.database import Database
from server.history.generations import snapshot
from server.history.pages import (
    EVERYTHING,
    Change,
    Opened,
    Page,
    Place,
    Scope,
    changes_since,
    generations_of,
    open_page,
)
from server.history.tables import Generation
from server.pages.cursor import Cursor
from server.pages.watches import Reader, Watches
from server.stream.events import Event
from server.stream.feed import Feed, Feeds

HEARTBEAT_S = 15.0
LOOK_AGAIN_S = 1.0
ROWS_AT_ONCE = 50

OPENED, RESYNC = "opened", "resync"
CONVERSATION_CHANGED, CONVERSATION_REMOVED, MESSAGE_CHANGED = (
    "conversation_changed",
    "conversation_removed",
    "message_changed",
)


class PageEvent(NamedTuple):
    """One event of a page; `cursor` leads to what follows it. `told` is its data, or the event of the answer `generation_id`."""

    cursor: str
    type: str
    told: dict[str, Any] | Event
    generation_id: str | None = None
    rows: Change | Opened | None = None
    """What of the tables `told` was made of."""


class Pages:
    """What following pages needs of a process."""

    def __init__(
        self, feeds: Feeds, watches: Watches, database: Database, redis: Redis, key_prefix: str
    ) -> None:
        self.feeds, self.watches, self.database = feeds, watches, database
        self._redis, self._key_prefix = redis, key_prefix

    async def open(self, scope: Scope, cursor: Cursor | None) -> "PageFollower":
        """A follower from the cursor on, or (None) from what there is now; raises NotFound."""
        anew = cursor is None or cursor.conversation_id != scope.conversation_id
        page = await self.database.read(
            open_page, scope, cursor.place if cursor else None, anew=anew
        )
        follower = PageFollower(self, scope, cursor.place if cursor else Place(page.change), page)
        if cursor is not None and page.opened is None and cursor.marks and scope.conversation_id:
            follower.marked = [
                (generation, cursor.marks[generation.id])
                for generation in await self.database.read(
                    generations_of, scope.conversation_id, list(cursor.marks)
                )
                if not (
                    generation.status.terminal and cursor.marks[generation.id] >= generation.seq
                )
            ]
        return follower

    async def snapshots(self, generations: list[Generation]) -> list[dict[str, Any]]:
        """These generations, with all that was said so far."""
        written = await all_written_so_far(self._redis, self._key_prefix, generations)
        return [
            snapshot(generation, so_far)
            for generation, so_far in zip(generations, written, strict=True)
        ]


class _Answer:
    """An answer that is being followed."""

    def __init__(self, generation: Generation, feed: Feed, left: ExitStack) -> None:
        self.id, self.message_id, self.feed = generation.id, generation.message_id, feed
        self.left = left
        """Closed when it is not followed any more."""


class PageFollower:
    """One reader's way through what a page shows. `follow` may be called once."""

    def __init__(self, pages: Pages, scope: Scope, place: Place, page: Page) -> None:
        self.marked: list[tuple[Generation, int]] = []
        self._pages, self._scope, self._page = pages, scope, page
        self._place, self._conversation_id = (
            place,
            scope.conversation_id if page.opened is None else None,
        )
        self._reader = Reader()
        self._answers: dict[str, _Answer] = {}
        self._marks: dict[str, int] = {}
        self._seen = page.change

    async def follow(self) -> AsyncGenerator[list[PageEvent] | None, None]:
        """Every event after the cursor, in order and once; None where a heartbeat is due. Ends when the process stops."""
        watches, scope = self._pages.watches, self._scope
        with ExitStack() as left, watches.watch(scope.account_id, self._reader) as watch:
            left.callback(self._leave_all)
            for generation, mark in self.marked:
                self._follow(generation, mark)
            async for events in self._tell(self._page):
                yield events
            while not watches.stopping:
                idle = True
                if watch.change > self._seen:
                    page = await self._pages.database.read(changes_since, scope, self._place)
                    self._seen = page.change
                    async for events in self._tell(page):
                        yield events
                        idle = False
                for answer in list(self._answers.values()):
                    if events := await self._next(answer):
                        yield events
                        idle = False
                if idle and not await self._reader.wait(HEARTBEAT_S):
                    yield None

    async def _tell(self, page: Page) -> AsyncGenerator[list[PageEvent], None]:
        """What was read of the tables; where it was too much, the page as it is now."""
        if page.changes is None and page.opened is None:
            try:
                page = await self._pages.database.read(open_page, self._scope, None, anew=True)
            except NotFound:
                return  # it was deleted among so many changes: whoever comes back is told so
            yield [self._event(RESYNC, {})]
        elif page.changes is None:
            yield [self._event(RESYNC, {})]
        if page.opened is not None:
            for events in self._listed(page.changes or []):
                yield events
            yield [await self._open(page.change, page.opened)]
            return
        async for events in self._changed(page.changes or []):
            yield events
        if not self._pages.watches.stopping:
            self._place = Place(page.change, EVERYTHING)

    async def _open(self, change: int, opened: Opened) -> PageEvent:
        self._leave_all()
        snapshots = await self._pages.snapshots(opened.writing)
        for generation, shown in zip(opened.writing, snapshots, strict=True):
            self._follow(generation, shown["seq"])
        self._place, self._conversation_id, self._seen = (
            Place(change, EVERYTHING),
            self._scope.conversation_id,
            change,
        )
        told = {
            "conversation": opened.conversation,
            "messages": opened.messages,
            "before": opened.before,
            "generations": snapshots,
        }
        return self._event(OPENED, told, opened)

    def _listed(self, changes: list[Change]) -> list[list[PageEvent]]:
        return [
            [self._row(change) for change in changes[start : start + ROWS_AT_ONCE]]
            for start in range(0, len(changes), ROWS_AT_ONCE)
        ]

    async def _changed(self, changes: list[Change]) -> AsyncGenerator[list[PageEvent], None]:
        """The changed rows. Before an answer's last state come the events that lead there: whoever has them needs no more."""
        events: list[PageEvent] = []
        for change in changes:
            if change.generation is not None:
                for answer in self._over(change.generation):
                    if events:
                        yield events
                        events = []
                    async for said in self._to_the_end(answer):
                        yield said
                if self._pages.watches.stopping:
                    return
                if (
                    not change.generation.status.terminal
                    and change.generation.id not in self._answers
                ):
                    self._follow(change.generation, 0)
            events.append(self._row(change))
            if len(events) >= ROWS_AT_ONCE:
                yield events
                events = []
        if events:
            yield events

    def _over(self, generation: Generation) -> list[_Answer]:
        """The followed writings of an answer that have ended, now that its message says `generation`."""
        followed = [
            answer
            for answer in self._answers.values()
            if answer.message_id == generation.message_id
        ]
        return [
            answer
            for answer in followed
            if answer.id != generation.id or generation.status.terminal
        ]

    async def _to_the_end(self, answer: _Answer) -> AsyncGenerator[list[PageEvent], None]:
        while answer.id in self._answers and not self._pages.watches.stopping:
            if events := await self._next(answer):
                yield events
            elif answer.id in self._answers:
                await self._reader.wait(LOOK_AGAIN_S)

    async def _next(self, answer: _Answer) -> list[PageEvent]:
        """The next events of an answer, which is left after its last one."""
        mark = self._marks[answer.id]
        batch = answer.feed.after(mark)
        if batch is None and answer.feed.is_behind(mark):
            batch = await self._pages.feeds.page(answer.id, mark)
        if batch is None:
            if answer.feed.ended and mark >= answer.feed.seq:
                self._leave(answer)
            return []
        return [self._said(answer, event) for event in batch.events]

    def _said(self, answer: _Answer, event: Event) -> PageEvent:
        self._marks[answer.id] = event.seq
        if event.terminal:
            self._leave(answer)
        return PageEvent(self._cursor(), event.type, event, answer.id)

    def _follow(self, generation: Generation, mark: int) -> None:
        left = ExitStack()
        feed = left.enter_context(self._pages.feeds.feed(generation.id, queued_event(generation)))
        feed.wakes.add(self._reader.wake)
        left.callback(feed.wakes.discard, self._reader.wake)
        self._answers[generation.id] = _Answer(generation, feed, left)
        self._marks[generation.id] = mark

    def _leave(self, answer: _Answer) -> None:
        answer.left.close()
        del self._answers[answer.id], self._marks[answer.id]

    def _leave_all(self) -> None:
        for answer in list(self._answers.values()):
            self._leave(answer)

    def _row(self, change: Change) -> PageEvent:
        self._place = change.place
        if change.shown is None:
            return self._event(CONVERSATION_REMOVED, {"id": change.id}, change)
        if change.about_message:
            return self._event(MESSAGE_CHANGED, {"message": change.shown}, change)
        return self._event(CONVERSATION_CHANGED, {"conversation": change.shown}, change)

    def _event(
        self, type: str, told: dict[str, Any], rows: Change | Opened | None = None
    ) -> PageEvent:
        return PageEvent(self._cursor(), type, told, rows=rows)

    def _cursor(self) -> str:
        return str(Cursor(self._place, self._conversation_id, self._marks))
