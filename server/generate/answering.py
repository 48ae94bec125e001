"""Answering: one attempt at an answer, from opening its log to settling its row."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import datetime
from enum import StrEnum
from itertools import count
from typing import Any, NamedTuple

from sqlalchemy.exc import SQLAlchemyError

from server.faults import reach
from server.generate.claim import Claimed
from server.generate.owned_log import Found, OwnedLog, Superseded
from server.generate.writer import LogWriter
from server.history.claims import (
    Ending,
    Progress,
    checkpoint,
    give_back,
    hand_over,
    note_left_out,
    settle,
)
from server.history.database import Database, DatabaseAway, until_available
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
    LeftOut,
    Provider,
    ProviderError,
    ReasoningDelta,
    TextDelta,
    ToolCall,
    Usage,
)
from server.settings import GenerationSettings
from server.stream.events import EventType

CHECKPOINT_EVERY_S = 5.0
HAND_OVER_FLUSH_TIMEOUT_S = 2.0
SETTLE_FLUSH_TIMEOUT_S = 10.0
"""How long a finished answer waits for Redis before it is settled; readers then get a snapshot."""

OPEN_TIMEOUT_S = 1.0
"""How long an answer that is cancelled before it began waits for the log of earlier attempts."""

ATTEMPT_MIN_S = 5.0
"""The time of an attempt even after the deadline, to open the log and keep what was written."""

PROVIDER_TRIES = 3
PROVIDER_RETRY_MIN_S = 0.5
PROVIDER_JITTER_S = 1.0
PROVIDER_RETRY_WAIT_S = 20.0


class Stop(StrEnum):
    """Why an attempt stops before the end of the answer."""

    CANCELLED = "cancelled"
    HANDED_OVER = "handed_over"
    SUPERSEDED = "superseded"


class Outcome(NamedTuple):
    """The result of an attempt, before it is stored."""

    status: Status
    finish_reason: str | None = None
    error: dict[str, Any] | None = None


def failed(code: str, message: str, *, retryable: bool = False) -> Outcome:
    """The outcome of an answer that failed."""
    return Outcome(Status.FAILED, error={"code": code, "message": message, "retryable": retryable})


def _logged_with(generation_id: str) -> str:
    return f"Internal server error. The server logged it with generation id {generation_id}."


def written_for_s(generation: Generation) -> float:
    """The time that earlier attempts took, in seconds.

    Every owner measures it by its own monotonic clock: the wall clocks of two hosts may differ by
    more than the deadline. Time without an owner does not count.
    """
    return generation.beat / 1000


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
        self._left_out = claimed.messages_left_out
        self._first_token_at: datetime | None = None
        self._cost = Cost(claimed.generation.usage, 0)
        self._prefix_bytes = 0
        self._continues, self._blank = False, True
        self.needs_title = False
        """Whether a title can now be generated for its conversation."""

    def stop(self, reason: Stop) -> None:
        """Stops the attempt soon. Only SUPERSEDED overrides an earlier reason."""
        if self._stopped is None or (
            reason is Stop.SUPERSEDED and self._stopped is not Stop.SUPERSEDED
        ):
            self._stopped = reason
            if self._generating is not None:
                self._generating.cancel()

    async def run(self) -> None:
        """Writes the answer to its end, settles it and requests the closing of its log."""
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

        The garbage collector runs too rarely to rely on it, see `server.command.process.tune_gc`.
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
                log.error("checkpoint_loop_failed", generation=self.generation.id, exc_info=error)

    async def _outcome(self) -> Outcome:
        """Runs the model and returns the outcome; raises Superseded."""
        left_s = self._limits.deadline_s - written_for_s(self.generation)
        self._generating = asyncio.create_task(self._generate())
        if self._stopped is not None:
            self._generating.cancel()
        try:
            async with asyncio.timeout(max(left_s, ATTEMPT_MIN_S)):
                return await self._generating
        except asyncio.CancelledError:
            if self._stopped is Stop.SUPERSEDED:
                raise Superseded from None
            if self._stopped is None:
                raise  # the process is stopping
            return Outcome(Status.CANCELLED)
        except TimeoutError:
            if not self.log.opened.done():
                return failed(
                    "log_unavailable", "The event log could not be reached.", retryable=True
                )
            return failed(
                "deadline_exceeded",
                f"The answer exceeded the deadline of {self._limits.deadline_s:g} s.",
                retryable=True,
            )
        except ProviderError as error:
            return failed(error.code, error.message, retryable=error.retryable)
        except Superseded:
            raise
        except Exception:  # a bug ends this answer, not the worker
            log.exception("answer_failed", generation=self.generation.id)
            return failed(
                "internal",
                _logged_with(self.generation.id),
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
                f"{self.generation.crashes} workers crashed while generating this answer.",
                retryable=True,
            )
        if self._provider is None or self._request is None:
            return failed(
                "provider_unavailable",
                f"The model {self.generation.model} is no longer available.",
            )
        self._continues = bool(prefix)
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
        """How long to wait before a retry; None for no retry, e.g. after the first token."""
        if tries == PROVIDER_TRIES or not error.retryable or self._first_token_at is not None:
            return None
        if error.code not in ("provider_unavailable", "provider_rate_limited"):
            return None
        if error.retry_after_s is None:
            return PROVIDER_RETRY_MIN_S * float(2 ** (tries - 1)) + random.uniform(
                0, PROVIDER_JITTER_S
            )
        if error.retry_after_s > PROVIDER_RETRY_WAIT_S:
            return None  # the user should see the error now rather than wait
        return error.retry_after_s

    def _begin(self, found: Found) -> Parts:
        """Logs how this attempt starts, and returns the content that it continues."""
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
            return True  # the attempt fails anyway, and keeps the content
        return self._provider.continues(self._request._replace(prefix=prefix))

    async def _consume(self, deltas: AsyncIterator[Delta]) -> Outcome:
        """Writes the model's output, to its end or to a limit."""
        async for delta in deltas:
            match delta:
                case TextDelta(text):
                    self._count(text)
                    self.log.delta(EventType.TEXT_DELTA, text)
                case ReasoningDelta(text):
                    self._count(text)
                    self.log.delta(EventType.REASONING_DELTA, text)
                case ToolCall():
                    self._blank = False
                    self._count(delta.arguments)
                    self.log.event(EventType.TOOL_CALL, delta._asdict())
                case LeftOut(turns):
                    await self._write_until_stored(
                        note_left_out, self.log.fence, self._left_out + turns
                    )
                case Usage(counts):
                    self._cost.counted = counts
                case Finish(reason):
                    self._cost.finished = True
                    if reason in ("stop", "other") and self._is_empty:
                        raise ProviderError(
                            "empty_answer", "The model returned an empty answer.", retryable=True
                        )
                    return Outcome(Status.COMPLETED, reason)
            output_bytes = self._prefix_bytes + self._cost.output_bytes
            if output_bytes > self._limits.output_max_bytes or self.log.full:
                return Outcome(Status.COMPLETED, "length")
        raise ProviderError(
            "provider_protocol", "The model's stream ended without a finish reason.", retryable=True
        )

    @property
    def _is_empty(self) -> bool:
        return self._blank and not self._continues

    def _count(self, text: str) -> None:
        self._cost.output_bytes += len(text) if text.isascii() else len(text.encode())
        if self._blank and text and not text.isspace():
            self._blank = False
        if self._first_token_at is None:
            self._first_token_at = now()

    async def _checkpoint(self) -> None:
        """Stores the content in SQL every few seconds, if it has changed."""
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
                    log.warning(
                        "checkpoint_failed", generation=self.generation.id, reason=str(error)
                    )

    async def _hand_over(self) -> None:
        """Releases the answer for the next claim, if possible after its events are in the log."""
        if not self._begun:
            await self._write_until_stored(give_back, self.log.fence)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(HAND_OVER_FLUSH_TIMEOUT_S):
                await self.log.flushed()
        self.log.freeze()  # if Redis lacks events now, the next attempt notices and starts over
        await self._write_until_stored(
            hand_over, self.log.fence, self._progress(*self.log.written())
        )

    async def _settle(self, outcome: Outcome) -> None:
        """Stores the outcome in SQL, then requests the closing of the log. Raises Superseded."""
        ending = await self._ending(outcome)
        account_id = self.generation.account_id
        try:
            settled = await self._write_until_stored(settle, self.log.fence, account_id, ending)
        except SQLAlchemyError:
            # The database rejects this content every time; unsettled, it would be retried forever.
            log.exception("answer_not_stored", generation=self.generation.id)
            error = failed("internal", _logged_with(self.generation.id)).error
            ending = Ending(Status.FAILED, ending.seq + 1, [], error=error)
            settled = await self._write_until_stored(settle, self.log.fence, account_id, ending)
        if settled is None:
            raise Superseded
        GENERATIONS.labels(settled.generation.status).inc()
        self.needs_title = (
            settled.title_due and ending.status is not Status.FAILED and bool(ending.parts)
        )
        self._writer.close(settled.generation.id, self.log.keys, terminal_event(settled.generation))

    async def _ending(self, outcome: Outcome) -> Ending:
        """Raises Superseded."""
        if self._begun:
            with suppress(TimeoutError):
                async with asyncio.timeout(SETTLE_FLUSH_TIMEOUT_S):
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
            await asyncio.wait([opened], timeout=OPEN_TIMEOUT_S)
        if opened.done() and opened.result() is not Found.LOST:
            self._cost = Cost(self._cost_before(), 0)
            return self.log.written()
        return self.generation.parts, seq_of_unopened(self.generation)

    def _cost_before(self) -> dict[str, Any] | None:
        asked_tokens = request_tokens(self._request)
        return cost_before(self.log.events, self.generation.usage, asked_tokens)

    def _progress(self, parts: Parts, seq: int) -> Progress:
        return Progress(parts, seq, self._cost.total(), self._first_token_at)

    async def _write_until_stored(self, fn: Any, *args: Any) -> Any:
        """Writes to SQL, with retries while it is unavailable; the fence makes them safe."""
        return await until_available(self._database.write, fn, *args)
