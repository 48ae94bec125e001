"""Answering: writing one answer, from the opened log to the settled row."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import datetime
from enum import StrEnum
from itertools import count
from typing import Any, NamedTuple

import stamina
from sqlalchemy.exc import SQLAlchemyError

from server.faults import reach
from server.generate.claim import Claimed
from server.generate.owned_log import Found, OwnedLog, Superseded
from server.generate.writer import LogWriter
from server.history.claims import Ending, Progress, checkpoint, give_back, hand_over, settle
from server.history.database import Database, DatabaseAway
from server.history.generations import Written
from server.history.tables import Generation, Status, now
from server.lifecycle.row_events import seq_of_unopened, snapshot_data, terminal_event
from server.lifecycle.usage import Cost, cost_before, request_tokens, tokens_in
from server.logs import log
from server.metrics import GENERATIONS
from server.parts import Parts
from server.providers.base import (
    Delta,
    Finish,
    Provider,
    ProviderError,
    ReasoningDelta,
    TextDelta,
    ToolCall,
    Usage,
)
from server.settings import GenerationSettings
from server.stream.events import EventType

BEAT_EVERY_S = 1.0
CHECKPOINT_EVERY_S = 5.0
HAND_OVER_PATIENCE_S = 2.0
LOG_PATIENCE_S = 10.0
"""How long a finished answer waits for Redis; then it is settled, and readers get a snapshot."""

OPEN_PATIENCE_S = 1.0
"""How long an answer that is cancelled before it began waits for what earlier attempts wrote."""

LAST_CHANCE_S = 5.0
"""What an answer gets even after its deadline, to open its log and keep what was written."""

PROVIDER_TRIES = 3
PROVIDER_RETRY_MIN_S = 0.5
PROVIDER_JITTER_S = 1.0
PROVIDER_RETRY_WAIT_S = 20.0


class Stop(StrEnum):
    """Why an answer is not written to its end."""

    CANCELLED = "cancelled"
    HANDED_OVER = "handed_over"
    SUPERSEDED = "superseded"


class Outcome(NamedTuple):
    """What an answer came to, before SQL has it."""

    status: Status
    finish_reason: str | None = None
    error: dict[str, Any] | None = None


def failed(code: str, message: str, *, retryable: bool = False) -> Outcome:
    """An answer that could not be written."""
    return Outcome(Status.FAILED, error={"code": code, "message": message, "retryable": retryable})


def written_for_s(generation: Generation) -> float:
    """How long the attempts before this one wrote, in seconds, at least.

    Counted in beats, which every owner writes once a second by its own monotonic clock: the wall
    clocks of two hosts may differ by more than the deadline. A claim adds one beat of its own.
    Time during which nobody owned the answer does not count.
    """
    return max(0, generation.beat - generation.attempt) * BEAT_EVERY_S


class Answering:
    """One attempt at one answer. `run` returns when it has ended or has another owner."""

    def __init__(
        self,
        claimed: Claimed,
        owned: OwnedLog,
        provider: Provider | None,
        *,
        database: Database,
        writer: LogWriter,
        limits: GenerationSettings,
    ) -> None:
        self.generation, self.log = claimed.generation, owned
        self._base, self._request, self._provider = claimed.base, claimed.request, provider
        self._database, self._writer, self._limits = database, writer, limits
        self._stopped: Stop | None = None
        self._generating: asyncio.Task[Outcome] | None = None
        self._begun = False
        self._first_token_at: datetime | None = None
        self._cost = Cost(claimed.generation.usage, 0)
        self._prefix_bytes = 0
        self.named_next = False
        """Whether its conversation waits for a title, and can have one now."""

    def stop(self, why: Stop) -> None:
        """Ends the answer as soon as the event loop gets to it; the first reason counts."""
        if self._stopped is None or (
            why is Stop.SUPERSEDED and self._stopped is not Stop.SUPERSEDED
        ):
            self._stopped = why
            if self._generating is not None:
                self._generating.cancel()

    async def run(self) -> None:
        """Writes the answer to its end, settles it and has its log closed."""
        self.log.superseded.add_done_callback(self._superseded)
        try:
            async with self._checkpoints():
                outcome = await self._outcome()
            if self._stopped is Stop.HANDED_OVER and outcome.status is Status.CANCELLED:
                await self._hand_over()
            else:
                await self._settle(outcome)
        except Superseded:
            log.info("superseded", generation=self.generation.id, attempt=self.generation.attempt)
        finally:
            self._writer.remove(self.log)
            self._release()

    def _superseded(self, _future: object) -> None:
        self.stop(Stop.SUPERSEDED)

    def _release(self) -> None:
        """Drops the log and breaks the reference cycles of this attempt.

        The garbage collector runs too rarely to be relied on, see `server.command.memory`.
        """
        self.log.superseded.remove_done_callback(self._superseded)
        self.log.release()
        self._request, self._base = None, []

    @asynccontextmanager
    async def _checkpoints(self) -> AsyncIterator[None]:
        """Stores checkpoints while the context is open."""
        task = asyncio.create_task(self._checkpoint())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled() and (error := task.exception()):
                log.error("checkpoints_failed", generation=self.generation.id, exc_info=error)

    async def _outcome(self) -> Outcome:
        """What the answer comes to; raises Superseded."""
        left_s = self._limits.deadline_s - written_for_s(self.generation)
        self._generating = asyncio.create_task(self._generate())
        if self._stopped is not None:
            self._generating.cancel()
        try:
            async with asyncio.timeout(max(left_s, LAST_CHANCE_S)):
                return await self._generating
        except asyncio.CancelledError:
            if self._stopped is Stop.SUPERSEDED:
                raise Superseded from None
            if self._stopped is None:
                raise  # not ours: the process is ending
            return Outcome(Status.CANCELLED)
        except TimeoutError:
            if not self.log.opened.done():
                return failed(
                    "log_unavailable", "The event log could not be reached.", retryable=True
                )
            return failed(
                "deadline_exceeded",
                f"The answer was not done after {self._limits.deadline_s:g} s.",
                retryable=True,
            )
        except ProviderError as error:
            return failed(error.code, error.message, retryable=error.retryable)
        except Superseded:
            raise
        except Exception:  # a fault of ours ends this answer, with a record, not the worker
            log.exception("answer_failed", generation=self.generation.id)
            return failed(
                "internal",
                f"The server failed; its log names generation {self.generation.id}.",
                retryable=True,
            )
        finally:
            self._generating = None  # a finished task keeps its result, its error and their frames

    async def _generate(self) -> Outcome:
        found = await asyncio.shield(self.log.opened)
        before = self._cost_before()
        self._begun = True
        prefix = self._begin(found)
        self._cost = Cost(before, request_tokens(self._request) + tokens_in(prefix))
        if self.generation.crashes >= self._limits.attempts_max:
            return failed(
                "attempts_exhausted",
                f"{self.generation.crashes} workers died while writing this answer.",
                retryable=True,
            )
        if self._provider is None or self._request is None:
            return failed(
                "provider_unavailable",
                f"The model {self.generation.model} is not offered here any more.",
            )
        self._prefix_bytes = sum(len(part.get("text", "").encode()) for part in prefix)
        request = self._request._replace(prefix=prefix)
        for tries in count(1):
            try:
                async with aclosing(self._provider.stream(request)) as deltas:
                    outcome = await self._consume(deltas)
                    reach("model done")
                    return outcome
            except ProviderError as error:
                wait_s = self._retry_after_s(error, tries)
                if wait_s is None:
                    raise
                log.info("provider_retried", code=error.code, wait_s=round(wait_s, 2))
            await asyncio.sleep(wait_s)
        raise AssertionError("the last try raises")

    def _retry_after_s(self, error: ProviderError, tries: int) -> float | None:
        """After how many seconds to ask the provider again; None: not, e.g. after its first token."""
        if tries == PROVIDER_TRIES or not error.retryable or self._first_token_at is not None:
            return None
        if error.code not in ("provider_unavailable", "provider_rate_limited"):
            return None
        if error.retry_after_s is None:
            return PROVIDER_RETRY_MIN_S * float(2 ** (tries - 1)) + random.uniform(
                0, PROVIDER_JITTER_S
            )
        if error.retry_after_s > PROVIDER_RETRY_WAIT_S:
            return None  # the user is told now rather than left waiting
        return error.retry_after_s

    def _begin(self, found: Found) -> Parts:
        """Says what this attempt does with what was written before; the content it goes on from."""
        attempt, so_far = self.generation.attempt, self.log.content.parts()
        reason = (
            "log_lost"
            if found is Found.LOST
            else "handed_over"
            if self.generation.handed_over == attempt - 1
            else "worker_lost"
        )
        if found is Found.NOTHING_YET:
            self.log.event(EventType.STARTED, {"attempt": attempt})
        elif found is Found.WHOLE and (so_far == self._base or self._can_continue(so_far)):
            self.log.event(EventType.RESUMED, {"attempt": attempt, "reason": reason})
            return so_far
        else:
            self.log.event(EventType.RESTARTED, {"attempt": attempt, "reason": reason})
        if self._base:
            self.log.event(
                EventType.SNAPSHOT,
                dict(snapshot_data(self.generation, Written(self._base, self.log.seq))),
            )
        return self._base

    def _can_continue(self, prefix: Parts) -> bool:
        if self._provider is None or self._request is None:
            return True  # it ends here anyway, and keeps what was said
        return self._provider.continues(self._request._replace(prefix=prefix))

    async def _consume(self, deltas: AsyncIterator[Delta]) -> Outcome:
        """Writes what the model says, to its end or to a limit."""
        async for delta in deltas:
            match delta:
                case TextDelta(text):
                    self._count(text)
                    self.log.delta(EventType.TEXT_DELTA, text)
                case ReasoningDelta(text):
                    self._count(text)
                    self.log.delta(EventType.REASONING_DELTA, text)
                case ToolCall():
                    self._count(delta.arguments)
                    self.log.event(EventType.TOOL_CALL, delta._asdict())
                case Usage(counts):
                    self._cost.counted = counts
                case Finish(reason):
                    self._cost.finished = True
                    return Outcome(Status.COMPLETED, reason)
            said_bytes = self._prefix_bytes + self._cost.said_bytes
            if said_bytes > self._limits.output_max_bytes or self.log.full:
                return Outcome(Status.COMPLETED, "length")
        raise ProviderError(
            "provider_protocol", "The model's stream ended without saying why.", retryable=True
        )

    def _count(self, text: str) -> None:
        self._cost.said_bytes += len(text) if text.isascii() else len(text.encode())
        if self._first_token_at is None:
            self._first_token_at = now()

    async def _checkpoint(self) -> None:
        """Keeps SQL within a few seconds of a long answer. One that says nothing costs nothing."""
        stored = self.generation.seq
        with suppress(Superseded):
            await asyncio.shield(self.log.opened)
            while True:
                await asyncio.sleep(CHECKPOINT_EVERY_S)
                parts, seq = await self.log.checkpoint()
                if seq == stored:
                    continue
                try:
                    await self._database.write(
                        checkpoint, self.log.fence, self._progress(parts, seq)
                    )
                    stored = seq
                except DatabaseAway as error:
                    log.warning("no_checkpoint", generation=self.generation.id, reason=str(error))

    async def _hand_over(self) -> None:
        """Leaves the answer to whoever claims it next, once everything said is in the log."""
        if not self._begun:
            await self._until_database(give_back, self.log.fence)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(HAND_OVER_PATIENCE_S):
                await self.log.flushed()
        self.log.freeze()  # what Redis has not got by now, it lacks: the next attempt finds out and starts over
        await self._until_database(hand_over, self.log.fence, self._progress(*self.log.written()))

    async def _settle(self, outcome: Outcome) -> None:
        """Makes the outcome the truth, then ends the log. Raises Superseded."""
        ending = await self._ending(outcome)
        account_id = self.generation.account_id
        try:
            settled = await self._until_database(settle, self.log.fence, account_id, ending)
        except SQLAlchemyError:  # SQL refuses this content, and always will: without an end, it would be written again and again
            log.exception("not_stored", generation=self.generation.id)
            error = failed(
                "internal",
                f"The server could not store the answer; its log names generation {self.generation.id}.",
            ).error
            ending = Ending(Status.FAILED, ending.seq + 1, [], error=error)
            settled = await self._until_database(settle, self.log.fence, account_id, ending)
        if settled is None:
            raise Superseded
        GENERATIONS.labels(settled.generation.status).inc()
        self.named_next = (
            settled.title_due and ending.status is not Status.FAILED and bool(ending.parts)
        )
        self._writer.close(settled.generation.id, self.log.keys, terminal_event(settled.generation))

    async def _ending(self, outcome: Outcome) -> Ending:
        """Raises Superseded."""
        if self._begun:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOG_PATIENCE_S):
                    await self.log.flushed()
            self.log.freeze()
            parts, seq = self.log.written()
        else:
            parts, seq = await self._written_before()
        return Ending(
            outcome.status,
            seq + 1,
            parts,
            outcome.finish_reason,
            self._cost.total(),
            outcome.error,
            self._first_token_at,
        )

    async def _written_before(self) -> tuple[Parts, int]:
        """What earlier attempts wrote: their log, or the checkpoint where that is not known whole."""
        opened = self.log.opened
        if self.generation.attempt > 1:
            await asyncio.wait([opened], timeout=OPEN_PATIENCE_S)
        if opened.done() and opened.result() is not Found.LOST:
            self._cost = Cost(self._cost_before(), 0)
            return self.log.written()
        return self.generation.parts, seq_of_unopened(self.generation)

    def _cost_before(self) -> dict[str, Any] | None:
        asked_tokens = request_tokens(self._request)
        return cost_before(self.log.events, self.generation.usage, asked_tokens)

    def _progress(self, parts: Parts, seq: int) -> Progress:
        return Progress(parts, seq, self._cost.total(), self._first_token_at)

    async def _until_database(self, fn: Any, *args: Any) -> Any:
        """Writes to SQL, and again while it is away: the fence makes a second write harmless.

        The first time without stamina, whose state is a reference cycle: one for every answer.
        """
        with suppress(DatabaseAway):
            return await self._database.write(fn, *args)
        async for attempt in stamina.retry_context(
            on=DatabaseAway, attempts=None, timeout=None, wait_initial=0.05, wait_max=1.0
        ):
            with attempt:
                return await self._database.write(fn, *args)
        raise AssertionError("there is no last attempt")
