"""The log of one generation, which its owner keeps whole in case Redis loses it."""

import asyncio
from bisect import bisect_right
from collections.abc import Callable
from enum import Enum
from math import inf
from typing import Any, TypeVar

from server.history.claims import Fence
from server.parts import Parts
from server.stream.content import Content
from server.stream.events import (
    EPOCH_SEQS,
    FIRST_SEQ,
    Event,
    EventType,
    last_seq_of_lost_log,
    make_event,
)
from server.stream.log import LogKeys

T = TypeVar("T")

DELTA_MAX_CHARS = 16_384

EVENTS_UNJOINED, JOINED_MIN_CHARS = 20_000, 64
"""After this many events, a delta has at least this many characters."""

EVENTS_MAX, PARTS_MAX = EPOCH_SEQS // 2, 10_000
"""The limits of an answer: two attempts must not share event numbers, and a model that alternates
between text and reasoning, which are never joined, must not make a part of every character."""


class Superseded(Exception):
    """Another attempt owns this generation, or it has ended: nothing more may be written."""


class Found(Enum):
    """What an attempt found when it opened its log."""

    NOTHING_YET = "nothing was written so far"
    WHOLE = "everything that was ever written"
    LOST = "something may be missing"


class OwnedLog:
    """One attempt's view of a log.

    New events are pending until the writer takes them: then adjacent deltas are joined, numbered
    and frozen. A frozen event keeps its bytes and its number through every retry.
    """

    def __init__(
        self,
        fence: Fence,
        keys: LogKeys,
        *,
        ttl_s: float,
        checkpoint_seq: int,
        handed_over: bool,
        dirty: Callable[["OwnedLog"], None],
    ) -> None:
        self.fence, self.keys, self.ttl_ms = fence, keys, int(ttl_s * 1000)
        self.content = Content()
        self.events: list[Event] = []
        self.acked = 0  # how many of `events` are known to be in the log
        self.seq = FIRST_SEQ
        self.whole = False  # the log in Redis is known to be complete
        self.complete = False  # `events` has everything that Redis may lack
        self.full = False  # the answer has reached the limit of events or parts
        self.delta_sent_at = -inf  # monotonic; -inf unless the last event that was sent is a delta
        self.opened: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self.superseded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending: list[tuple[EventType, list[str] | dict[str, Any]]] = []
        self._flushing = False
        self._checkpoint_seq, self._handed_over = checkpoint_seq, handed_over
        self._dirty = dirty
        self._flushed: list[asyncio.Future[None]] = []
        self._checkpoints: list[asyncio.Future[tuple[Parts, int]]] = []

    @property
    def first(self) -> bool:
        """Whether no event can have been written yet."""
        return self.fence.attempt == 1 and not self.events

    def delta(self, type: EventType, text: str) -> None:
        """Adds text or reasoning, and replaces NULs, which PostgreSQL cannot store."""
        text = text.replace("\0", "\ufffd")
        if self._pending and self._pending[-1][0] is type:
            self._pending[-1][1].append(text)  # type: ignore[union-attr]  # a delta's pieces are a list
        else:
            self._add_pending(type, [text])
        self._dirty(self)

    def event(self, type: EventType, data: dict[str, Any]) -> None:
        """Adds any other event, and replaces NULs in its strings."""
        data = {
            name: value.replace("\0", "\ufffd") if isinstance(value, str) else value
            for name, value in data.items()
        }
        self._add_pending(type, data)
        self._dirty_now()

    def _dirty_now(self) -> None:
        self.delta_sent_at = -inf
        self._dirty(self)

    def _add_pending(self, type: EventType, what: list[str] | dict[str, Any]) -> None:
        self._pending.append((type, what))
        pending = len(self._pending)
        self.full = (
            self.content.part_count + pending >= PARTS_MAX
            or len(self.events) + pending >= EVENTS_MAX
        )

    def freeze(self) -> None:
        """Numbers and encodes the pending events.

        Once an answer has many events, short deltas wait to be joined: otherwise a model that sends
        single characters would make a million events of an answer of 1 MB.
        """
        if self._waits_for_more():
            return
        pending, self._pending = self._pending, []
        for type, what in pending:
            if isinstance(what, dict):
                self._freeze(make_event(self.seq + 1, type, self._complete(type, what)))
            else:
                text = "".join(what)
                for start in range(0, len(text), DELTA_MAX_CHARS):
                    self._freeze_delta(type, text[start : start + DELTA_MAX_CHARS])

    def _waits_for_more(self) -> bool:
        if len(self.events) < EVENTS_UNJOINED or self._flushing or len(self._pending) != 1:
            return False
        _type, pieces = self._pending[0]
        return isinstance(pieces, list) and sum(map(len, pieces)) < JOINED_MIN_CHARS

    def next_batch(self, size: int) -> list[Event]:
        """The first events that are not known to be in the log, of about `size` bytes."""
        batch: list[Event] = []
        while size > 0 and self.acked + len(batch) < len(self.events):
            batch.append(self.events[self.acked + len(batch)])
            size -= len(batch[-1].data)
        return batch

    def _complete(self, type: EventType, data: dict[str, Any]) -> dict[str, Any]:
        match type:
            case EventType.TOOL_CALL | EventType.TOOL_RESULT:
                return {"part": self.content.next_part(type), **data}
            case EventType.SNAPSHOT:
                return {**data, "seq": self.seq}
            case _:
                return data

    def _freeze(self, event: Event) -> None:
        self._add(event)
        self.content.apply(event)

    def _freeze_delta(self, type: EventType, text: str) -> None:
        part = self.content.next_part(type)
        self._add(make_event(self.seq + 1, type, {"part": part, "text": text}))
        self.content.add_text(type, part, text)

    def _add(self, event: Event) -> None:
        self.events.append(event)
        self.seq, self.complete = event.seq, True

    def adopt(self, seq: int, entries: list[Event], *, whole: bool) -> None:
        """Takes over the log's events at the first open; later, only records what Redis has.

        Raises DamagedEvent before it has changed anything.
        """
        if self.opened.done():
            self.whole = whole
            self.acked = bisect_right(self.events, seq, key=lambda event: event.seq)
            self._notify()
            return
        content = Content()
        for event in entries:
            content.apply(event)
        self.content, self.whole = content, whole
        self.events, self.acked, self.seq = list(entries), len(entries), seq
        intact = seq == (entries[-1].seq if entries else FIRST_SEQ)
        trusted = whole or (self._handed_over and seq == self._checkpoint_seq)
        if intact and trusted and seq >= self._checkpoint_seq:
            self.complete = True
            self.opened.set_result(Found.WHOLE if entries else Found.NOTHING_YET)
        else:
            self.seq = max(seq, last_seq_of_lost_log(self.fence.attempt))
            self.opened.set_result(Found.LOST)

    def acknowledge(self, sent: int) -> None:
        """Records that the first `sent` events are in the log."""
        self.acked = sent
        if sent == len(self.events):
            self.whole = True
        self._notify()

    def _notify(self) -> None:
        """Ends the waits for all events to be in the log, if they are."""
        if self.acked < len(self.events):
            return
        _resolve(self._checkpoints, self.written)
        if not self._pending:
            _resolve(self._flushed, lambda: None)

    def supersede(self) -> None:
        """Ends every wait on this log with Superseded."""
        if not self.superseded.done():
            self.superseded.set_result(None)
        waiting: list[asyncio.Future[Any]] = [self.opened, *self._flushed, *self._checkpoints]
        for future in waiting:
            if not future.done():
                future.set_exception(Superseded())
                future.exception()  # marks it as retrieved: asyncio warns if nobody waits

    def release(self) -> None:
        """Drops all events. Called at the end, after the writer dropped this log."""
        self.events, self.acked, self._pending = [], 0, []
        self.content = Content()
        self._dirty = lambda _log: None

    async def flushed(self) -> None:
        """Waits until every event is in the log; no more may be added. Raises Superseded."""
        self._flushing = True
        if self._pending:
            self._dirty_now()
        if self._pending or self.acked < len(self.events):
            await self._wait(self._flushed)

    async def checkpoint(self) -> tuple[Parts, int]:
        """Content that is all in the log, and the number of its last event. Raises Superseded."""
        if self.acked == len(self.events):
            return self.written()
        return await self._wait(self._checkpoints)

    async def _wait(self, waiting: list[asyncio.Future[T]]) -> T:
        if self.superseded.done():
            raise Superseded
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        waiting.append(future)
        return await future

    def written(self) -> tuple[Parts, int]:
        """The content as of the last frozen event, and its number."""
        return self.content.parts(), self.seq


def _resolve(waiting: list[asyncio.Future[T]], result: Callable[[], T]) -> None:
    if waiting:
        value = result()
        for future in waiting:
            if not future.done():
                future.set_result(value)
        waiting.clear()
