"""The writer: one per worker process, one connection, every generation of the process.

A token after a pause is sent at once. Those that soon follow are gathered, and so are those that
arrive while a batch is in flight: a batch has everything that is pending, with the deltas of a
generation joined. After a reconnection, or when a log is lost, ownership is confirmed in SQL before
the log is opened again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from math import inf
from time import monotonic
from typing import Any

from server.faults import reach
from server.generate.heartbeat import OPEN_WITHIN, Heartbeat
from server.generate.owned_log import OwnedLog
from server.history.claims import Fence
from server.history.database import DatabaseAway
from server.logs import log
from server.metrics import EVENTS_APPENDED, LOG_LOSSES
from server.stream.events import DELTAS, Event
from server.stream.link import Command, Link, LinkLost
from server.stream.log import (
    APPEND,
    CLOSE,
    OPEN,
    LogKeys,
    append_command,
    close_command,
    concerns_server,
    events_of,
    open_command,
)

LOGS_AT_ONCE = 64
BATCH_BYTES = 128 * 1024
"""The maximum number of logs in one pipeline, and of bytes for each."""

BATCH_PAUSE_S = 0.002
"""The pause after a batch for several answers, so that the next is larger."""

GATHER_S = 0.025
"""A delta that follows another within this time waits for the next one, at most as long again. At
50 tokens/s, that makes one event of two; tokens at less than 40/s are never held back."""

PING_EVERY_S = 15.0
"""While there is nothing to write: load balancers drop connections that are idle for longer."""

RETRY_MIN_S, RETRY_MAX_S = 0.05, 1.0
LOG_RETRY_MAX_S = 5.0

Confirm = Callable[[Sequence[Fence]], Awaitable[set[Fence]]]
"""Reads in SQL which of these fences still hold. Raises DatabaseAway."""


class Busy(Exception):
    """Redis cannot write now (full, loading, read-only); the same bytes are sent again later."""


class LogWriter:
    """Writes the logs of one process, while `run` and `confirm` run."""

    def __init__(
        self, url: str, heartbeat: Heartbeat, confirm: Confirm, *, retention_s: float
    ) -> None:
        self._heartbeat = heartbeat
        self._url, self._confirm, self._retention_ms = url, confirm, int(retention_s * 1000)
        self._logs: set[OwnedLog] = set()
        self._dirty: set[OwnedLog] = set()
        self._unopened: set[OwnedLog] = set()  # to be opened before anything else
        self._closings: dict[str, tuple[LogKeys, Event]] = {}
        self._held: dict[OwnedLog, int] = {}  # the term of the heartbeat that confirmed ownership
        self._paused: set[OwnedLog] = set()
        self._failures: dict[OwnedLog, int] = {}
        self._to_verify: set[OwnedLog] = set()
        self._verify = asyncio.Event()
        self._work = asyncio.Event()
        self._gathering: asyncio.TimerHandle | None = None
        self._clock_offset_s = 0.0  # Redis's clock minus the monotonic one, never too large
        self._clock_read_at = inf  # monotonic; infinite while it has to be read
        self.sealed: list[str] = []
        """Generations whose logs were closed. The caller records that in SQL and removes them."""

    def add(self, owned: OwnedLog, term: int) -> None:
        """Schedules the opening of a log claimed in this term; resolves `owned.opened`."""
        self._logs.add(owned)
        self._unopened.add(owned)
        self._held[owned] = term
        self._work.set()

    def remove(self, owned: OwnedLog) -> None:
        """Drops a log; its pending events are no longer written."""
        self._logs.discard(owned)
        self._failures.pop(owned, None)
        for some in (self._dirty, self._unopened, self._to_verify):
            some.discard(owned)
        self._held.pop(owned, None)

    def dirty(self, owned: OwnedLog) -> None:
        """Schedules a write of a log's pending events: at once, or when some have gathered."""
        self._dirty.add(owned)
        if monotonic() - owned.delta_sent_at >= GATHER_S:
            self._work.set()
        elif self._gathering is None:
            self._gathering = asyncio.get_running_loop().call_later(GATHER_S, self._work.set)

    def close(self, generation_id: str, keys: LogKeys, terminal: Event) -> None:
        """Schedules the closing of a settled generation's log; it is then added to `sealed`."""
        self._closings[generation_id] = (keys, terminal)
        self._work.set()

    @property
    def closing(self) -> int:
        """How many logs are still to be closed."""
        return len(self._closings)

    async def run(self) -> None:
        """Writes until cancelled; reconnects when the connection is lost."""
        pause_s = RETRY_MIN_S
        while True:
            link: Link | None = None
            try:
                link = await Link.connect(self._url)
                await self._prepare(link)
                self._work.set()
                while True:
                    await self._wait_for_work(link)
                    await self._open(link)
                    written = await self._append(link)
                    await self._close(link)
                    pause_s = RETRY_MIN_S
                    if written > 1:
                        await asyncio.sleep(BATCH_PAUSE_S)
            except (LinkLost, Busy) as error:
                LOG_LOSSES.inc()
                log.warning("log_write_failed", reason=str(error), generations=len(self._logs))
            finally:
                if link is not None:
                    await link.close()
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, RETRY_MAX_S)

    async def _wait_for_work(self, link: Link) -> None:
        since = monotonic()
        timer = asyncio.get_running_loop().call_later(PING_EVERY_S, self._work.set)
        try:
            await self._work.wait()
        finally:
            timer.cancel()
        self._work.clear()
        if monotonic() - since >= PING_EVERY_S:
            await link.execute([("PING",)])

    async def _prepare(self, link: Link) -> None:
        """Loads the scripts. On a new connection, the clock is read and every log is reopened."""
        await link.execute([("SCRIPT", "LOAD", each.source) for each in (OPEN, APPEND, CLOSE)])
        self._clock_read_at = inf
        self._unopened |= self._logs
        for owned in self._logs:
            if owned.opened.done():
                self._held.pop(owned, None)

    async def _read_clock(self, link: Link) -> None:
        [time] = await link.execute([("TIME",)])
        if isinstance(time, Exception):
            raise Busy(str(time))
        self._clock_read_at = monotonic()
        self._clock_offset_s = int(time[0]) + int(time[1]) / 1e6 - self._clock_read_at

    async def _open(self, link: Link) -> None:
        """Opens logs whose ownership is confirmed; requests confirmation of others.

        The deadline follows from the last beat, and is read before the term: when others have
        declared this worker dead, the term rises before there is another beat. The beat has to be
        younger than the reading of Redis's clock: the monotonic clock stands still while the
        machine sleeps (decision 0003).
        """
        if not self._unopened:
            return
        if self._clock_read_at == inf:
            await self._read_clock(link)
        heartbeat = self._heartbeat
        beaten_at, term = heartbeat.beaten_at, heartbeat.term
        window_s = OPEN_WITHIN * heartbeat.lease_s
        fresh = beaten_at > max(monotonic() - window_s / 2, self._clock_read_at)
        opening = []
        for owned in self._unopened - self._paused:
            if fresh and self._held.get(owned) == term:
                opening.append(owned)
            elif owned not in self._to_verify:
                self._to_verify.add(owned)
                self._verify.set()
        for start in range(0, len(opening), LOGS_AT_ONCE):
            chunk = [
                owned for owned in opening[start : start + LOGS_AT_ONCE] if owned in self._held
            ]
            for owned, reply in zip(
                chunk,
                await _execute(
                    link,
                    "open",
                    [self._open_command(owned, beaten_at + window_s) for owned in chunk],
                ),
                strict=True,
            ):
                if owned not in self._logs:
                    continue
                if failure := _failure_of(reply):
                    self._pause(owned, failure)
                else:
                    self._opened(owned, reply)

    def _open_command(self, owned: OwnedLog, until: float) -> Command:
        deadline_s = until + self._clock_offset_s
        return open_command(
            owned.keys,
            owned.fence.attempt,
            deadline_us=int(deadline_s * 1e6),
            ttl_ms=owned.ttl_ms,
            first=owned.first,
            entries=not owned.opened.done(),
        )

    def _opened(self, owned: OwnedLog, reply: Any) -> None:
        match reply[0]:
            case b"open":
                self._unopened.discard(owned)
                whole = reply[1] == 1
                try:
                    owned.adopt(reply[2], events_of(reply[3]), whole=whole)
                except ValueError as error:
                    log.warning("log_damaged", log=owned.keys.events.decode(), reason=str(error))
                    owned.adopt(reply[2], [], whole=whole)
                self.dirty(owned)
            case b"late":
                # The beat was too old, or Redis's clock has moved since it was read.
                self._clock_read_at = inf
                self._held.pop(owned, None)
                self._pause(owned, "late")
            case _:
                self._supersede(owned)

    async def confirm(self) -> None:
        """Confirms in SQL which logs may be reopened, until cancelled, without delaying others."""
        while True:
            await self._verify.wait()
            self._verify.clear()
            verifying = list(self._to_verify)
            try:
                term = self._heartbeat.term
                await self._heartbeat.beat_now()
                held = await self._confirm([owned.fence for owned in verifying])
                for owned in verifying:
                    if owned not in self._logs:
                        continue  # removed in the meantime: recording it now would leak it
                    if owned.fence in held:
                        self._held[owned] = term
                    else:
                        self._supersede(owned)
            except DatabaseAway as error:
                log.warning("unavailable", doing="confirm", reason=str(error))
                await asyncio.sleep(RETRY_MAX_S)
            finally:
                self._to_verify.difference_update(verifying)
                self._work.set()  # if still unknown, `_open` requests it again

    def _pause(self, owned: OwnedLog, reason: str) -> None:
        """Pauses a log that Redis refuses to write; the others continue."""
        if owned not in self._logs:
            return
        failures = self._failures[owned] = self._failures.get(owned, 0) + 1
        pause_s = min(RETRY_MIN_S * float(2**failures), LOG_RETRY_MAX_S)
        log.warning("log_paused", log=owned.keys.events.decode(), reason=reason, pause_s=pause_s)
        self._paused.add(owned)
        asyncio.get_running_loop().call_later(pause_s, self._resume, owned)

    def _resume(self, owned: OwnedLog) -> None:
        self._paused.discard(owned)
        if owned in self._logs:
            self.dirty(owned)

    def _supersede(self, owned: OwnedLog) -> None:
        owned.supersede()
        self.remove(owned)

    async def _append(self, link: Link) -> int:
        """Writes pending events; returns the number of logs."""
        dirty, self._dirty = self._dirty, set()
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        try:
            writable = [
                owned
                for owned in dirty
                if owned not in self._unopened and owned not in self._paused
            ]
            for start in range(0, len(writable), LOGS_AT_ONCE):
                await self._append_some(link, writable[start : start + LOGS_AT_ONCE])
            return len(writable)
        finally:
            for owned in dirty:
                unsent = owned.acked < len(owned.events)
                if unsent and owned in self._logs and owned not in self._unopened:
                    self._dirty.add(owned)
                    if owned not in self._paused:
                        self._work.set()

    async def _append_some(self, link: Link, some: list[OwnedLog]) -> None:
        sending: list[tuple[OwnedLog, int]] = []
        commands: list[Command] = []
        for owned in some:
            try:
                owned.freeze()
            except (TypeError, ValueError):  # no JSON can be made of an event: the others go on
                log.exception("event_not_encoded", log=owned.keys.events.decode())
                self._supersede(owned)
                continue
            events = owned.next_batch(BATCH_BYTES)
            if events and events[-1].type in DELTAS:
                owned.delta_sent_at = monotonic()
            if events or (owned.complete and not owned.whole):
                sent = owned.acked + len(events)
                commands.append(_append_command(owned, events, sent))
                sending.append((owned, sent))
        for (owned, sent), reply in zip(
            sending, await _execute(link, "append", commands) if commands else [], strict=True
        ):
            if failure := _failure_of(reply):
                self._pause(owned, failure)
            elif reply == 1:
                self._failures.pop(owned, None)
                EVENTS_APPENDED.inc(sent - owned.acked)
                owned.acknowledge(sent)
            else:  # lost, or owned by another attempt: SQL decides
                if owned in self._logs:
                    self._unopened.add(owned)
                self._held.pop(owned, None)
                self._work.set()

    async def _close(self, link: Link) -> None:
        closings = dict(islice(self._closings.items(), LOGS_AT_ONCE))
        if not closings:
            return
        commands = [
            close_command(*closing, retention_ms=self._retention_ms)
            for closing in closings.values()
        ]
        for generation_id, reply in zip(
            closings, await _execute(link, "close", commands), strict=True
        ):
            failure = _failure_of(reply)
            del self._closings[generation_id]
            if failure:  # the sweep tries again
                log.warning("log_close_failed", generation=generation_id, reason=failure)
            else:
                self.sealed.append(generation_id)
        if self._closings:
            self._work.set()


async def _execute(link: Link, script: str, commands: list[Command]) -> list[Any]:
    reach(f"before {script}")
    replies = await link.execute(commands)
    reach(f"after {script}")
    return replies


def _append_command(owned: OwnedLog, events: list[Event], sent: int) -> Command:
    """Appends events, after which Redis has the first `sent` ones."""
    whole = sent == len(owned.events) and owned.complete and not owned.whole
    return append_command(owned.keys, owned.fence.attempt, events, ttl_ms=owned.ttl_ms, whole=whole)


def _failure_of(reply: Any) -> str | None:
    """The error in the reply for one log, if it is one. Raises Busy for errors of the server.

    After Busy, a new connection loads the scripts and opens every log again.
    """
    if not isinstance(reply, Exception):
        return None
    if concerns_server(reply):
        raise Busy(str(reply))
    return str(reply)
