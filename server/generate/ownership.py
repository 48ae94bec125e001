"""Ownership: what a worker process owns, its signs of life, and its eye on everybody else's."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any

from redis.exceptions import RedisError

from server.generate.answering import BEAT_EVERY_S, Answering, Stop
from server.generate.claim import Claimed, claim_and_prepare
from server.generate.owned_log import OwnedLog
from server.generate.writer import LogWriter
from server.history.claims import Fence, OpenRow, Seen, beat, mark_sealed, open_rows, touch
from server.history.database import Database, DatabaseAway
from server.lifecycle.queue import Queue
from server.lifecycle.settling import Settler, Staleness
from server.logs import log
from server.loops import keep
from server.metrics import TAKEOVERS
from server.providers.base import Provider
from server.providers.registry import Models
from server.settings import GenerationSettings
from server.stream.log import log_keys

HAND_OVER_S = 5.0
SEAL_AFTER_S = 2.0
ENQUEUE_AGAIN_AFTER_S = 2.0


class Ownership:
    """The generations of one worker process."""

    def __init__(
        self,
        owner: str,
        database: Database,
        queue: Queue,
        settler: Settler,
        providers: dict[str, Provider],
        models: Models,
        *,
        url: str,
        key_prefix: str,
        limits: GenerationSettings,
    ) -> None:
        self.owner, self.draining = owner, False
        self.writer = LogWriter(url, self._confirm, retention_s=limits.retention_s)
        self._database, self._queue, self._settler = database, queue, settler
        self._providers, self._models = providers, models
        self._key_prefix, self._limits = key_prefix, limits
        self._answers: dict[str, Answering] = {}
        self._taking: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._repairing: asyncio.Task[None] | None = None
        self._staleness = Staleness()
        self._others = False  # somebody else owned something when this was last looked at

    def __len__(self) -> int:
        return len(self._answers)

    async def take(self, generation_id: str, seen: Seen | None = None) -> None:
        """Claims a generation and writes its answer; returns at once if it has an owner or ended."""
        if generation_id in self._answers or generation_id in self._taking:
            return
        if self.draining:
            await self._queue.pass_on(generation_id, self.owner)
            return
        self._taking.add(generation_id)
        try:
            began = monotonic()
            claimed = await claim_and_prepare(
                self._database,
                generation_id,
                self.owner,
                self._models,
                self._limits.output_max_tokens,
                seen,
            )
            if claimed is None:
                return
            if claimed.generation.attempt > 1:
                TAKEOVERS.inc()
            answering = self._answers[generation_id] = self._answering(claimed, began)
            if self.draining:
                answering.stop(Stop.HANDED_OVER)
        except DatabaseAway as error:
            log.warning("not_claimed", generation=generation_id, reason=str(error))
            return
        except Exception:  # what cannot even be begun would be tried for ever
            log.exception("not_begun", generation=generation_id)
            await self._settler.fail(generation_id)
            return
        finally:
            self._taking.discard(generation_id)
        try:
            await answering.run()
        finally:
            del self._answers[generation_id]
        if self._limits.titles and answering.named_next:
            await self._queue.put_title(answering.generation.conversation_id)

    def stop(self, generation_id: str) -> None:
        """Stops an answer that its reader does not want any more."""
        if answering := self._answers.get(generation_id):
            answering.stop(Stop.CANCELLED)

    async def drain(self, drain_s: float) -> None:
        """Takes nothing more, lets what ends within `drain_s` end, and hands the rest over."""
        self.draining = True
        deadline = monotonic() + drain_s
        while (self._answers or self._taking) and monotonic() < deadline:
            await asyncio.sleep(0.05)
        for answering in list(self._answers.values()):
            answering.stop(Stop.HANDED_OVER)
        deadline = monotonic() + HAND_OVER_S
        while (self._answers or self._taking or self.writer.closing) and monotonic() < deadline:
            await asyncio.sleep(0.02)
        with suppress(DatabaseAway):
            await self._note_sealed()

    async def run(self) -> None:
        """Writes, beats and sweeps until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for loop in (
                self.writer.run,
                self.writer.confirm,
                partial(self._every, self._beat),
                partial(self._every, self._sweep),
            ):
                tasks.create_task(keep(loop))

    async def _every(self, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            began = monotonic()
            try:
                await step()
            except (DatabaseAway, RedisError) as error:
                log.warning("away", doing=step.__name__, reason=str(error))
            await asyncio.sleep(max(0.05, BEAT_EVERY_S - (monotonic() - began)))

    async def _beat(self) -> None:
        """Beats for all owned generations; finds out which were cancelled or have another owner."""
        await self._note_sealed()
        before = dict(self._answers)
        if not before:
            return
        beats = {row.id: row for row in await self._database.write(beat, self.owner)}
        for id, answering in before.items():
            row = beats.get(id)
            if self._answers.get(id) is not answering:
                continue  # it ended meanwhile
            if row is None or row.attempt != answering.generation.attempt:
                answering.stop(Stop.SUPERSEDED)
            elif row.cancel_requested:
                answering.stop(Stop.CANCELLED)

    async def _confirm(self, fences: Sequence[Fence]) -> set[Fence]:
        held = {(row.id, row.attempt) for row in await self._database.write(beat, self.owner)}
        return {fence for fence in fences if (fence.generation_id, fence.attempt) in held}

    async def _note_sealed(self) -> None:
        sealed, self.writer.sealed = self.writer.sealed, []
        if sealed:
            try:
                await self._database.write(mark_sealed, sealed)
            except DatabaseAway:
                self.writer.sealed += sealed
                raise

    async def _sweep(self) -> None:
        """Takes over what dead workers left, and finds what else has to be repaired."""
        if self._others:
            # A database that can be read but not written (SQLite, locked) lets nobody beat: that
            # makes nobody dead. Not a beat: these are counted, see `written_for_s`.
            await self._database.write(touch, self.owner)
        rows = await self._database.read(open_rows)
        self._others = any(
            row.seen.owner not in (None, self.owner) and not row.status.terminal for row in rows
        )
        dead = self._staleness.look(rows)
        cancelled: list[OpenRow] = []
        waiting: list[str] = []
        unsealed: list[str] = []
        for row in rows:
            for_s = self._staleness.for_s(row)
            ownerless = row.seen.owner is None or row.id in dead
            if row.status.terminal:
                if for_s > SEAL_AFTER_S:
                    unsealed.append(row.id)
            elif row.cancel_requested:
                if ownerless or self._forgotten(row):
                    cancelled.append(row)
            elif row.seen.attempt and (ownerless or self._forgotten(row)):
                self._spawn(self.take(row.id, row.seen))
            elif not row.seen.attempt and for_s > ENQUEUE_AGAIN_AFTER_S:
                waiting.append(row.id)
        if self._repairing is None or self._repairing.done():
            self._repairing = self._spawn(self._repair(cancelled, waiting, unsealed))

    async def _repair(
        self, cancelled: list[OpenRow], waiting: list[str], unsealed: list[str]
    ) -> None:
        """Repairs what a sweep found. Beside the sweep: while Redis hangs, deaths are still noticed."""
        try:
            for row in cancelled:
                await self._settler.cancel(row.id, row.seen)
            if not self.draining:
                await self._queue.put_missing(waiting)
            await self._settler.seal_left(unsealed)
        except (DatabaseAway, RedisError) as error:
            log.warning("away", doing="repair", reason=str(error))

    def _forgotten(self, row: OpenRow) -> bool:
        """Whether it is ours by a claim whose reply never came, or by an answer that broke."""
        return (
            row.seen.owner == self.owner
            and row.id not in self._answers
            and row.id not in self._taking
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs what a sweep began beside it. Answers that are taken over do not wait for a slot."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("sweep_failed", exc_info=error)

    def _answering(self, claimed: Claimed, began: float) -> Answering:
        generation = claimed.generation
        owned = OwnedLog(
            Fence(generation.id, self.owner, generation.attempt),
            log_keys(self._key_prefix, generation.id),
            ttl_s=self._limits.deadline_s + self._limits.retention_s,
            checkpoint_seq=generation.seq,
            handed_over=generation.handed_over == generation.attempt - 1,
            dirty=self.writer.dirty,
        )
        self.writer.add(owned, began)
        return Answering(
            claimed,
            owned,
            self._providers.get(claimed.provider),
            database=self._database,
            writer=self.writer,
            limits=self._limits,
        )
