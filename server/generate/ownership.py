"""Ownership: the generations of a worker process, and the takeover from dead workers."""

import asyncio
import random
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

from redis.exceptions import RedisError

from server.generate.answering import Answering, Stop
from server.generate.claim import Claimed, claim_and_prepare
from server.generate.heartbeat import Heartbeat
from server.generate.owned_log import OwnedLog
from server.generate.writer import LogWriter
from server.history.claims import (
    Fence,
    OpenRow,
    Seen,
    mark_sealed,
    open_rows,
    owned_rows,
    release_row,
)
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

LOOK_EVERY_S = 1.0
HAND_OVER_S = 5.0
TAKEN_AT_ONCE = 64
"""How many answers of dead workers one look takes over: more than one worker should share them."""

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
        database_url: str,
        key_prefix: str,
        lease_s: float,
        owned_max: int,
        limits: GenerationSettings,
    ) -> None:
        self.owner, self.draining = owner, False
        self._look = asyncio.Event()
        self.heartbeat = Heartbeat(database_url, owner, lease_s, self._look.set)
        self.writer = LogWriter(url, self.heartbeat, self._confirm, retention_s=limits.retention_s)
        self._database, self._queue, self._settler = database, queue, settler
        self._providers, self._models = providers, models
        self._key_prefix, self._limits, self._owned_max = key_prefix, limits, owned_max
        self._answers: dict[str, Answering] = {}
        self._taking: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._repairing: asyncio.Task[None] | None = None
        self._staleness = Staleness()

    def __len__(self) -> int:
        return len(self._answers)

    async def take(self, generation_id: str) -> None:
        """Claims a generation and writes its answer; does nothing if it is owned or has ended."""
        if generation_id in self._answers or generation_id in self._taking:
            return
        if self.draining:
            await self._queue.pass_on(generation_id, self.owner)
            return
        self._taking.add(generation_id)
        try:
            term = self.heartbeat.term
            claimed = await claim_and_prepare(
                self._database,
                generation_id,
                self.owner,
                self._models,
                self._limits.output_max_tokens,
            )
            if claimed is None:
                return
            if claimed.generation.attempt > 1:
                TAKEOVERS.inc()
            answering = self._answers[generation_id] = self._answering(claimed, term)
            if self.draining:
                answering.stop(Stop.HANDED_OVER)
        except DatabaseAway as error:
            log.warning("claim_failed", generation=generation_id, reason=str(error))
            return
        except Exception:  # otherwise it would be claimed again forever
            log.exception("start_failed", generation=generation_id)
            await self._settler.fail(generation_id)
            return
        finally:
            self._taking.discard(generation_id)
        try:
            await answering.run()
        finally:
            del self._answers[generation_id]
        if self._limits.titles and answering.needs_title:
            await self._queue.put_title(answering.generation.conversation_id)

    def stop(self, generation_id: str) -> None:
        """Cancels an answer."""
        if answering := self._answers.get(generation_id):
            answering.stop(Stop.CANCELLED)

    async def drain(self, drain_s: float) -> None:
        """Claims nothing more, lets answers end within `drain_s`, and hands the rest over."""
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
        """Writes logs and looks after answers until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for loop in (self.writer.run, self.writer.confirm, self._look_after):
                tasks.create_task(keep(loop))

    async def _look_after(self) -> None:
        """Checks the owned answers and sweeps, each second and when the heartbeat asks for it."""
        while True:
            for step in (self._check_owned, self._sweep):
                try:
                    await step()
                except (DatabaseAway, RedisError) as error:
                    log.warning("unavailable", doing=step.__name__, reason=str(error))
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._look.wait()
            self._look.clear()

    async def _check_owned(self) -> None:
        """Stops answers that were cancelled or have another owner; releases what nobody writes."""
        await self._note_sealed()
        before = dict(self._answers)
        owned = {row.id: row for row in await self._database.read(owned_rows, self.owner)}
        for id, answering in before.items():
            row = owned.pop(id, None)
            if self._answers.get(id) is not answering:
                continue  # it ended meanwhile
            if row is None or row.attempt != answering.generation.attempt:
                answering.stop(Stop.SUPERSEDED)
            elif row.cancel_requested:
                answering.stop(Stop.CANCELLED)
        for id, row in owned.items():
            # after a lost reply to a claim, or a bug
            if id not in self._answers and id not in self._taking:
                seen = Seen(self.owner, row.attempt, 0)
                await self._database.write(release_row, id, seen, self.owner)
                self._look.set()

    async def _confirm(self, fences: Sequence[Fence]) -> set[Fence]:
        owned = {(row.id, row.attempt) for row in await self._database.read(owned_rows, self.owner)}
        return {fence for fence in fences if (fence.generation_id, fence.attempt) in owned}

    async def _note_sealed(self) -> None:
        sealed, self.writer.sealed = self.writer.sealed, []
        if sealed:
            try:
                await self._database.write(mark_sealed, sealed)
            except DatabaseAway:
                self.writer.sealed += sealed
                raise

    async def _sweep(self) -> None:
        """Takes over generations without an owner, and repairs what else needs it."""
        rows = await self._database.read(open_rows)
        dead = self._staleness.look(rows)
        ownerless: list[str] = []
        cancelled: list[OpenRow] = []
        waiting: list[str] = []
        unsealed: list[str] = []
        for row in rows:
            for_s = self._staleness.for_s(row)
            if row.status.terminal:
                if for_s > SEAL_AFTER_S:
                    unsealed.append(row.id)
            elif row.id in dead or self._settler.has_forgotten(row):
                await self._database.write(release_row, row.id, row.seen, self.owner)
                self._look.set()
            elif row.cancel_requested:
                if row.seen.owner is None:
                    cancelled.append(row)
            elif row.seen.owner is None and row.seen.attempt:
                ownerless.append(row.id)
            elif not row.seen.attempt and for_s > ENQUEUE_AGAIN_AFTER_S:
                waiting.append(row.id)
        self._take_over(ownerless)
        if self._repairing is None or self._repairing.done():
            self._repairing = self._spawn(self._repair(cancelled, waiting, unsealed))

    def _take_over(self, ownerless: list[str]) -> None:
        """Takes some of these over, not the same ones as every other worker."""
        room = min(TAKEN_AT_ONCE - len(self._taking), self._owned_max - len(self._answers))
        if self.draining or room <= 0:
            return
        taken = random.sample(ownerless, min(len(ownerless), room))
        for generation_id in taken:
            self._spawn(self.take(generation_id))
        if len(taken) < len(ownerless):
            self._look.set()

    async def _repair(
        self, cancelled: list[OpenRow], waiting: list[str], unsealed: list[str]
    ) -> None:
        """Repairs what a sweep found. Runs beside it: a hanging Redis must not delay takeovers."""
        try:
            await self._settler.cancel([row.id for row in cancelled])
            if not self.draining:
                await self._queue.put_missing(waiting)
            await self._settler.seal_left(unsealed)
        except (DatabaseAway, RedisError) as error:
            log.warning("unavailable", doing="repair", reason=str(error))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs a task beside the sweep. Answers that are taken over do not wait for a slot."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("sweep_failed", exc_info=error)

    def _answering(self, claimed: Claimed, term: int) -> Answering:
        generation = claimed.generation
        owned = OwnedLog(
            Fence(generation.id, self.owner, generation.attempt),
            log_keys(self._key_prefix, generation.id),
            ttl_s=self._limits.deadline_s + self._limits.retention_s,
            checkpoint_seq=generation.seq,
            handed_over=generation.handed_over == generation.attempt - 1,
            dirty=self.writer.dirty,
        )
        self.writer.add(owned, term)
        return Answering(
            claimed,
            owned,
            self._providers.get(claimed.provider),
            database=self._database,
            writer=self.writer,
            limits=self._limits,
        )
