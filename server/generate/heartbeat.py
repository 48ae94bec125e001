"""Signs of life: a worker's own, and its eye on those of the others.

They have a thread, an event loop and a database connection of their own: a worker that is busy is
not taken for dead. Its event loop might hang, though: it has to report to the thread.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from time import monotonic
from typing import Any, Final

from sqlmodel import Session

from server.history import workers
from server.history.database import Database, DatabaseAway, open_database
from server.history.workers import EARLIER_VERSION, Life
from server.logs import log

BEATS_PER_LEASE: Final = 4
GAP_MAX_BEATS: Final = 3
OPEN_WITHIN: Final = 0.8
"""In which part of the lease a log may be opened: by its end, another worker may own the answer."""

HANG_S = 8.0
"""How long the worker's event loop may be stuck before the worker counts as dead."""

RECOVERY_S = 6.0
"""How long nobody is declared dead after an outage of the database, that is, after a gap of more than
a lease: others may come back later."""

REPORT_EVERY_S = 0.25
EARLIER_VERSION_EVERY_S = 3.0


class Watch:
    """Finds dead workers: this process saw their beat unchanged for their lease, by its own clock.

    Only while its own beats are written in time: otherwise the others' could not be either.
    """

    def __init__(self, lease_s: float) -> None:
        self._lease_s, self._gap_max_s = lease_s, GAP_MAX_BEATS * lease_s / BEATS_PER_LEASE
        self._since: dict[str, tuple[int, float]] = {}
        self._looked_at: float | None = None
        self._trusted_from = float("-inf")

    def look(self, lives: list[Life], at: float) -> list[Life]:
        """Takes what was read in a transaction that began `at` and took a beat. Returns the dead."""
        gap_s = at - self._looked_at if self._looked_at is not None else 0.0
        if gap_s > self._gap_max_s:
            self._since.clear()
        if gap_s > self._lease_s:
            self._trusted_from = at + RECOVERY_S
        self._looked_at = at
        before, self._since = self._since, {}
        for name, beat, _lease_s in lives:
            seen, since = before.get(name, (None, at))
            self._since[name] = (beat, since if seen == beat else at)
        if at < self._trusted_from:
            return []
        return [life for life in lives if at - self._since[life.name][1] >= life.lease_s]


class Heartbeat:
    """The signs of life of one worker. `changed` is called when it should look at its answers."""

    def __init__(self, url: str, name: str, lease_s: float, changed: Callable[[], None]) -> None:
        self.name, self.lease_s = name, lease_s
        self.beaten_at = float("-inf")
        """Before the last beat that was written, monotonic."""
        self.term = 0
        """Rises when others have declared this worker dead: what it owned before, it has lost."""
        self._url, self._changed = url, changed
        self._every_s = lease_s / BEATS_PER_LEASE
        self._watch = Watch(lease_s)
        self._started_at = self._alive_at = monotonic()
        self._registered, self._away = False, False
        self._rows_beaten_at = float("-inf")
        self._waiting: list[asyncio.Future[None]] = []
        self._stopped = False
        self._wake_thread: Callable[[], Any] = lambda: None

    async def beat_now(self) -> None:
        """Returns once a beat was written that began after this call. Raises DatabaseAway."""
        written = asyncio.get_running_loop().create_future()
        self._waiting.append(written)
        self._wake_thread()
        await written

    @asynccontextmanager
    async def beating(self, stop: asyncio.Event) -> AsyncIterator[None]:
        """Beats while the context is open. Entered after the first beat, or when `stop` is set."""
        loop, ready, ended = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        self._worker_loop = loop

        def run() -> None:
            try:
                asyncio.run(self._beat_until_stopped(ready))
            finally:
                loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=run, daemon=True, name="heartbeat").start()
        reporting = asyncio.create_task(self._report())
        try:
            await _first_of(ready, stop)
            yield
        finally:
            self._stopped = True
            with suppress(RuntimeError):  # its event loop is closed: the thread has failed
                self._wake_thread()
            await ended.wait()
            reporting.cancel()

    async def _report(self) -> None:
        """Shows the thread that the worker's event loop runs."""
        while True:
            self._alive_at = monotonic()
            await asyncio.sleep(REPORT_EVERY_S)

    async def _beat_until_stopped(self, ready: asyncio.Event) -> None:
        wake = asyncio.Event()
        self._wake_thread = partial(asyncio.get_running_loop().call_soon_threadsafe, wake.set)
        async with open_database(self._url) as database:
            while not self._stopped:
                waiting, self._waiting = self._waiting, []
                began = monotonic()
                try:
                    await self._beat(database, began)
                    self._notify(partial(_resolve, waiting, None))
                    self._notify(ready.set)
                except (DatabaseAway, TimeoutError) as error:
                    if not self._away:
                        log.warning("unavailable", doing="beat", reason=str(error))
                    self._away = True
                    away = DatabaseAway(str(error))
                    self._notify(partial(_resolve, waiting, away))
                except Exception:  # a worker without a heartbeat would lose its answers
                    log.exception("beat_failed")
                    self._waiting += waiting
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(0.05, began + self._every_s - monotonic())):
                        await wake.wait()
                wake.clear()
            with suppress(DatabaseAway):
                await database.write(workers.leave, self.name)

    async def _beat(self, database: Database, began: float) -> None:
        """One beat, and a look at the others'. Raises DatabaseAway and TimeoutError."""
        if began - self._alive_at > HANG_S:
            log.error("event_loop_hangs", for_s=round(began - self._alive_at, 1))
            return
        async with asyncio.timeout(self.lease_s):
            lives, lost = await database.write(
                beat_or_register, self.name, int((began - self._started_at) * 1000), self.lease_s
            )
        if lost and self._registered:
            log.warning("declared_dead", worker=self.name)
            self.term += 1
            self._notify(self._changed)
        self._registered, self._away = True, False
        self.beaten_at = began
        others = [life for life in lives if life.name not in (self.name, EARLIER_VERSION)]
        for dead in self._watch.look(others, began):
            released = await database.write(workers.declare_dead, dead.name, dead.beat)
            log.warning("worker_dead", worker=dead.name, answers=len(released))
            self._notify(self._changed)
        if (
            any(life.name == EARLIER_VERSION for life in lives)
            and began - self._rows_beaten_at > EARLIER_VERSION_EVERY_S
        ):
            await database.write(workers.beat_rows, self.name)
            self._rows_beaten_at = began

    def _notify(self, callback: Callable[[], Any]) -> None:
        """Runs a callback in the worker's event loop."""
        self._worker_loop.call_soon_threadsafe(callback)


async def _first_of(*events: asyncio.Event) -> None:
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _resolve(waiting: list[asyncio.Future[None]], error: DatabaseAway | None) -> None:
    for future in waiting:
        if future.done():
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


def beat_or_register(
    session: Session, name: str, beat: int, lease_s: float
) -> tuple[list[Life], bool]:
    """Writes a beat; all workers, and whether this one had to be registered first."""
    lives = workers.beat(session, name, beat)
    if lives is not None:
        return lives, False
    workers.register(session, name, beat, lease_s)
    return workers.lives(session), True
