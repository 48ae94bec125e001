"""Search slots: how many searches of this process run at once.

A search takes CPU time from the streams of its process, and on SQLite one of its two readers.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakValueDictionary

from server.errors import TooMany

SEARCHES_MAX: Final = 2
SEARCH_WAIT_MAX_S: Final = 10


class SearchSlots:
    """Bounds how many searches of this process run at a time: one per account, two in all."""

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(SEARCHES_MAX)
        self._accounts: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def take(self, account_id: str) -> AsyncIterator[None]:
        """Holds a slot while the context is open. Raises TooMany when none is free in time."""
        account = self._accounts.setdefault(account_id, asyncio.Lock())
        try:
            async with asyncio.timeout(SEARCH_WAIT_MAX_S):
                await account.acquire()
                try:
                    await self._all.acquire()
                except BaseException:
                    account.release()
                    raise
        except TimeoutError:
            raise TooMany(
                "too_many_searches",
                "Too many searches are running. Try again later.",
                limit=SEARCHES_MAX,
                retry_after_s=1,
            ) from None
        try:
            yield
        finally:
            self._all.release()
            account.release()
