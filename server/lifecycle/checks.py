"""Checks of what a web process needs: at most one in 5 s, whoever asks."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final

from server.logs import log

CHECKED_FOR_S: Final = 5.0


class Check:
    """A check and its last result. `look` returns what is wrong, or an empty string."""

    def __init__(self, event: str, look: Callable[[], Awaitable[str]]) -> None:
        self._event, self._look = event, look
        self._checked_at = float("-inf")
        self._problem = ""
        self._checking = asyncio.Lock()

    async def problem(self) -> str:
        """What is wrong, in one sentence; logged as `event` when it changes."""
        async with self._checking:
            if monotonic() - self._checked_at > CHECKED_FOR_S:
                problem = await self._look()
                if problem and problem != self._problem:
                    log.error(self._event, reason=problem)
                self._problem, self._checked_at = problem, monotonic()
            return self._problem
