"""Checks of what a web process needs: at most one in 5 s, whoever asks."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final

from server.logs import log

CHECKED_FOR_S: Final = 5.0


class Check:
    """The last result of a check: what is wrong, or an empty string."""

    def __init__(self, what: str, look: Callable[[], Awaitable[str]]) -> None:
        self._what, self._look = what, look
        self._checked_at = float("-inf")
        self._wrong = ""
        self._checking = asyncio.Lock()

    async def wrong(self) -> str:
        """What is wrong, one sentence; it is logged when it changes."""
        async with self._checking:
            if monotonic() - self._checked_at > CHECKED_FOR_S:
                wrong = await self._look()
                if wrong and wrong != self._wrong:
                    log.error(f"{self._what}_refuses", reason=wrong)
                self._wrong, self._checked_at = wrong, monotonic()
            return self._wrong
