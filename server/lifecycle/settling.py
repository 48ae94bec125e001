"""Settling cancelled answers without an owner, and closing logs that were left open.

An answer is claimed first and its log is read afterwards, when no other process can write to it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from time import monotonic

from redis.asyncio import Redis
from redis.exceptions import RedisError

from server.history.claims import (
    Ending,
    Fence,
    OpenRow,
    Seen,
    claim,
    give_back,
    mark_sealed,
    open_rows,
    release_row,
    settle,
)
from server.history.database import Database, DatabaseAway
from server.history.generations import settled_without_content
from server.history.tables import Generation, Status
from server.lifecycle.prompt import prompt_tokens
from server.lifecycle.row_events import seq_of_unopened, terminal_event
from server.lifecycle.usage import cost_before
from server.logs import log
from server.stream.content import Content
from server.stream.events import Event
from server.stream.log import (
    OPEN,
    call_script,
    close_logs,
    concerns_server,
    events_of,
    log_keys,
    open_command,
)

STALE_AFTER_S = 8.0
OPEN_WITHIN_S = 5.0
"""How long after a claim a settler may open the log: less than the time until it counts as dead."""

READ_GAP_MAX_S = 2.0
SETTLED_AT_ONCE = 16
SEALED_AT_ONCE = 100
SEAL_AGAIN_MAX_S = 600.0


class Staleness:
    """Finds dead owners: those whose beat has not changed for 8 s by this process's clock.

    Workers watch each other more closely, see `server.generate.heartbeat`. This is for owners that
    have no row of their own, and for web processes when no worker is left.
    """

    def __init__(self) -> None:
        self._since: dict[str, tuple[Seen, float]] = {}
        self._read_at = monotonic()

    def look(self, rows: list[OpenRow]) -> set[str]:
        """Compares rows just read; returns the ids with a dead owner. A gap restarts the 8 s."""
        at = monotonic()
        gap = at - self._read_at > READ_GAP_MAX_S
        self._read_at = at
        before, self._since = self._since, {}
        for row in rows:
            seen, since = before.get(row.id, (None, at))
            self._since[row.id] = (row.seen, since if seen == row.seen and not gap else at)
        return {
            row.id
            for row in rows
            if row.seen.owner and at - self._since[row.id][1] >= STALE_AFTER_S
        }

    def for_s(self, row: OpenRow) -> float:
        """How many seconds a row has been unchanged."""
        return monotonic() - self._since[row.id][1]


class LogNotOpened(Exception):
    """A log that this claim may not open, or not any more. It is tried again with another claim."""


class Settler:
    """Settles answers without an owner. Every process has one."""

    def __init__(
        self,
        name: str,
        database: Database,
        redis: Redis,
        *,
        key_prefix: str,
        ttl_s: float,
        retention_s: float,
    ) -> None:
        self.name, self.database, self._redis = name, database, redis
        self._key_prefix, self._ttl_s, self._retention_s = key_prefix, ttl_s, retention_s
        self._cancelling: set[str] = set()
        self._refused: dict[str, tuple[int, float]] = {}
        """How often Redis refused to close a log, and from when (monotonic) it is tried again."""

    async def sweep_cancelled(self, staleness: Staleness) -> None:
        """Settles cancelled answers without a live owner, and those this process had claimed."""
        rows = [
            row
            for row in await self.database.read(open_rows, cancelled_only=True)
            if not row.status.terminal
        ]
        dead = staleness.look(rows)
        for row in rows:
            if row.id in dead or self.has_forgotten(row):
                await self.database.write(release_row, row.id, row.seen, self.name)
        rows.sort(key=lambda row: row.seen.attempt)
        await self.cancel([row.id for row in rows])

    def has_forgotten(self, row: OpenRow) -> bool:
        """Whether this settler owns it without settling it, after a lost reply to its claim."""
        return row.seen.owner == self.name and row.id not in self._cancelling

    async def cancel(self, ids: Sequence[str]) -> None:
        """Settles those of these cancelled answers that have no owner, and keeps their text.

        Those without a log should come first: they need no Redis, whose timeout this waits for
        once. Raises DatabaseAway.
        """
        settled: dict[str, Event] = {}
        away: DatabaseAway | RedisError | None = None
        for start in range(0, len(ids), SETTLED_AT_ONCE):
            chunk = ids[start : start + SETTLED_AT_ONCE]
            ended = await asyncio.gather(
                *(self._cancel_once(id) for id in chunk), return_exceptions=True
            )
            for id, end in zip(chunk, ended, strict=True):
                if isinstance(end, DatabaseAway | RedisError):
                    away = end
                elif isinstance(end, Exception):  # it concerns this answer alone
                    log.error("settle_failed", generation=id, exc_info=end)
                elif isinstance(end, BaseException):
                    raise end
                elif end is not None:
                    settled[id] = end
            if away is not None:
                break
        if isinstance(away, DatabaseAway):
            raise away
        if away is not None:  # a sweep closes the logs of settled answers
            log.warning("unavailable", doing="settle", reason=str(away))
        elif settled:
            await self._seal_if_possible(settled)

    async def _cancel_once(self, generation_id: str) -> Event | None:
        if generation_id in self._cancelling:
            return None
        self._cancelling.add(generation_id)
        try:
            return await self._cancel(generation_id)
        finally:
            self._cancelling.discard(generation_id)

    async def _cancel(self, generation_id: str) -> Event | None:
        """The terminal event of what it settled; None if it has an owner.

        Raises LogNotOpened, and RedisError while Redis is away.
        """
        began = monotonic()
        claimed = await self.database.write(claim, generation_id, self.name, to_cancel=True)
        if claimed is None:
            return None
        fence = Fence(generation_id, self.name, claimed.attempt)
        try:
            events, content = await self._open(claimed, began)
        except (LogNotOpened, RedisError):
            await self.database.write(give_back, fence)
            raise
        parts, seq, usage = claimed.parts, seq_of_unopened(claimed), claimed.usage
        if events:
            usage = cost_before(events, usage, await self.database.read(prompt_tokens, claimed))
        if content is not None and events and events[-1].seq >= claimed.seq:
            parts, seq = content.parts(), events[-1].seq
        settled = await self.database.write(
            settle, fence, claimed.account_id, Ending(Status.CANCELLED, seq + 1, parts, usage=usage)
        )
        return terminal_event(settled.generation) if settled is not None else None

    async def fail(self, generation_id: str) -> None:
        """Settles an answer without an owner that cannot be started. Raises DatabaseAway."""
        claimed = await self.database.write(claim, generation_id, self.name)
        if claimed is None:
            return
        error = {
            "code": "internal",
            "message": "Internal server error. "
            f"The server logged it with generation id {generation_id}.",
            "retryable": True,
        }
        ending = Ending(
            Status.FAILED,
            seq_of_unopened(claimed) + 1,
            claimed.parts,
            error=error,
            usage=claimed.usage,
        )
        settled = await self.database.write(
            settle, Fence(generation_id, self.name, claimed.attempt), claimed.account_id, ending
        )
        if settled is not None:
            await self._seal_if_possible({generation_id: terminal_event(settled.generation)})

    async def _seal_if_possible(self, settled: Mapping[str, Event]) -> None:
        """Closes the logs of answers that were just settled. While Redis is away, a sweep does later."""
        try:
            await self._seal(settled)
        except RedisError as error:
            log.warning("log_close_failed", generations=len(settled), reason=str(error))

    async def seal_left(self, generation_ids: list[str]) -> None:
        """Closes the logs of those of these generations that are settled. Raises RedisError.

        A log that Redis refuses to close is tried again after 2, 4, 8 s and so on.
        """
        at = monotonic()
        self._refused = {id: self._refused[id] for id in generation_ids if id in self._refused}
        due = [id for id in generation_ids if id not in self._refused or self._refused[id][1] <= at]
        for start in range(0, len(due), SEALED_AT_ONCE):
            settled = await self.database.read(
                settled_without_content, due[start : start + SEALED_AT_ONCE]
            )
            for id in await self._seal({row.id: terminal_event(row) for row in settled}):
                times = self._refused.get(id, (0, 0.0))[0] + 1
                self._refused[id] = times, at + min(float(2**times), SEAL_AGAIN_MAX_S)

    async def _seal(self, settled: Mapping[str, Event]) -> list[str]:
        """Closes these logs in one round trip; those that Redis refuses to close. Raises RedisError."""
        closings = [(log_keys(self._key_prefix, id), end) for id, end in settled.items()]
        closed = await close_logs(self._redis, closings, self._retention_s)
        sealed, refused = [], []
        for id, reply in zip(settled, closed, strict=True):
            if isinstance(reply, RedisError):
                log.warning("log_close_failed", generation=id, reason=str(reply))
                refused.append(id)
            else:
                sealed.append(id)
        if sealed:
            await self.database.write(mark_sealed, sealed)
        return refused

    async def _open(self, claimed: Generation, began: float) -> tuple[list[Event], Content | None]:
        """The events of the log that this claim opened, and their content where none was lost.

        Raises LogNotOpened, and RedisError while Redis is away.
        """
        if claimed.attempt == 1:
            return [], None
        keys = log_keys(self._key_prefix, claimed.id)
        seconds, microseconds = await self._redis.time()
        deadline_us = int((seconds + began - monotonic() + OPEN_WITHIN_S) * 1e6) + microseconds
        command = open_command(
            keys,
            claimed.attempt,
            deadline_us=deadline_us,
            ttl_ms=int(self._ttl_s * 1000),
            first=False,
            entries=True,
        )
        [reply] = await call_script(self._redis, OPEN, [command])
        if isinstance(reply, RedisError):
            if concerns_server(reply):
                raise reply
            log.warning("log_damaged", generation=claimed.id, reason=str(reply))
            return [], None
        if reply[0] != b"open":
            raise LogNotOpened(f"the log could not be opened: {reply[0].decode()}")
        content = Content()
        try:
            events = events_of(reply[3])
            for event in events:
                content.apply(event)
        except ValueError as error:
            log.warning("log_damaged", generation=claimed.id, reason=str(error))
            return [], None
        trusted = reply[1] == 1 or claimed.handed_over == claimed.attempt - 1
        return events, content if trusted else None
