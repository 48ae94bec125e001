"""Settling cancelled answers without an owner, and closing logs that were left open.

An answer is claimed first and its log is read afterwards, when no other process can write to it.
"""

from time import monotonic

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

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
from server.history.database import Database
from server.history.generations import settled_generations
from server.history.tables import Generation, Status
from server.lifecycle.prompt import prompt_tokens
from server.lifecycle.row_events import end_of, seq_of_unopened
from server.lifecycle.usage import cost_before
from server.logs import log
from server.stream.content import Content
from server.stream.events import Event
from server.stream.log import OPEN, OPEN_WITHIN_S, close_logs, events_of, log_keys

STALE_AFTER_S = 8.0
READ_GAP_MAX_S = 2.0
SEALED_AT_ONCE = 100


class Staleness:
    """Finds dead owners: those whose beat has not changed for 8 s by this process's clock."""

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
            elif row.seen.owner is not None:
                continue
            await self.cancel(row.id)

    def has_forgotten(self, row: OpenRow) -> bool:
        """Whether this settler owns it by a claim whose reply never came."""
        return row.seen.owner == self.name and row.id not in self._cancelling

    async def cancel(self, generation_id: str) -> Generation | None:
        """Settles a cancelled answer without an owner and keeps its text; None if it has an owner.

        Raises DatabaseAway.
        """
        if generation_id in self._cancelling:
            return None
        self._cancelling.add(generation_id)
        try:
            return await self._cancel(generation_id)
        finally:
            self._cancelling.discard(generation_id)

    async def _cancel(self, generation_id: str) -> Generation | None:
        began = monotonic()
        claimed = await self.database.write(claim, generation_id, self.name, to_cancel=True)
        if claimed is None:
            return None
        try:
            events, trusted = await self._open(claimed, began)
        except RedisError as error:
            log.warning("settle_failed", generation=generation_id, reason=str(error))
            await self.database.write(give_back, Fence(generation_id, self.name, claimed.attempt))
            return None
        parts, seq, usage = claimed.parts, seq_of_unopened(claimed), claimed.usage
        if events:
            usage = cost_before(events, usage, await self.database.read(prompt_tokens, claimed))
        if trusted and events and events[-1].seq >= claimed.seq:
            content = Content()
            for event in events:
                content.apply(event)
            parts, seq = content.parts(), events[-1].seq
        fence = Fence(generation_id, self.name, claimed.attempt)
        settled = await self.database.write(
            settle, fence, claimed.account_id, Ending(Status.CANCELLED, seq + 1, parts, usage=usage)
        )
        if settled is None:
            return None
        await self.seal([settled.generation])
        return settled.generation

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
            await self.seal([settled.generation])

    async def seal(self, settled: list[Generation]) -> None:
        """Closes the logs of settled answers, in one round trip."""
        closings = [
            (log_keys(self._key_prefix, generation.id), end_of(generation).terminal)
            for generation in settled
        ]
        try:
            closed = await close_logs(self._redis, closings, self._retention_s)
        except RedisError as error:
            log.warning("log_close_failed", generations=len(settled), reason=str(error))
            return
        sealed = []
        for generation, reply in zip(settled, closed, strict=True):
            if isinstance(reply, RedisError):
                log.warning("log_close_failed", generation=generation.id, reason=str(reply))
            else:
                sealed.append(generation.id)
        if sealed:
            await self.database.write(mark_sealed, sealed)

    async def seal_left(self, generation_ids: list[str]) -> None:
        """Closes the logs of those of these generations that are settled."""
        for start in range(0, len(generation_ids), SEALED_AT_ONCE):
            await self.seal(
                await self.database.read(
                    settled_generations, generation_ids[start : start + SEALED_AT_ONCE]
                )
            )

    async def _open(self, claimed: Generation, began: float) -> tuple[list[Event], bool]:
        """Opens the log of a claimed generation: its events, and whether none was lost."""
        if claimed.attempt == 1:
            return [], True
        keys = log_keys(self._key_prefix, claimed.id)
        seconds, microseconds = await self._redis.time()
        deadline_us = int((seconds + began - monotonic() + OPEN_WITHIN_S) * 1e6) + microseconds
        arguments = (
            keys.state,
            keys.events,
            claimed.attempt,
            deadline_us,
            int(self._ttl_s * 1000),
            "",
            "entries",
        )
        try:
            reply = await self._redis.execute_command("EVALSHA", OPEN.sha, 2, *arguments)  # type: ignore[no-untyped-call]
        except NoScriptError:
            reply = await self._redis.execute_command("EVAL", OPEN.source, 2, *arguments)  # type: ignore[no-untyped-call]
        if reply[0] != b"open":
            raise RedisError(f"the log could not be opened: {reply[0].decode()}")
        try:
            events = events_of(reply[3])
        except ValueError as error:
            log.warning("log_damaged", generation=claimed.id, reason=str(error))
            return [], False
        return events, reply[1] == 1 or claimed.handed_over == claimed.attempt - 1
