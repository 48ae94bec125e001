"""Background loops: restarted when they fail, and one that checks ids when they are due."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from server.logs import log

PAUSE_S = 1.0


async def keep(run: Callable[[], Awaitable[None]]) -> None:
    """Runs `run` until cancelled; an error is logged and the loop restarted."""
    while True:
        try:
            await run()
        except Exception:  # the other loops of this process must go on
            log.exception("loop_failed", loop=getattr(run, "__qualname__", str(run)))
        await asyncio.sleep(PAUSE_S)


class DueLoop:
    """Checks ids in chunks: those of `check_soon` at once, those of `due` every `every_s`."""

    def __init__(
        self,
        due: Callable[[], Iterable[str]],
        check: Callable[[list[str]], Awaitable[None]],
        *,
        every_s: float,
        at_once: int,
    ) -> None:
        self._due, self._check = due, check
        self._every_s, self._at_once = every_s, at_once
        self._ids: set[str] = set()
        self._woken = asyncio.Event()

    def check_soon(self, id: str) -> None:
        """Schedules a check of `id` as soon as possible."""
        self._ids.add(id)
        self._woken.set()

    async def run(self) -> None:
        """Checks until cancelled."""
        loop = asyncio.get_running_loop()
        tick_at = loop.time() + self._every_s
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(tick_at):
                    await self._woken.wait()
            self._woken.clear()
            ids, self._ids = self._ids, set()
            if loop.time() >= tick_at:
                tick_at = loop.time() + self._every_s
                ids |= set(self._due())
            chunks = list(ids)
            for start in range(0, len(chunks), self._at_once):
                await self._check(chunks[start : start + self._at_once])
