"""Presence: the open streams of this process, by the credential that opened them.

They end within 5 s of its revocation or expiry.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from server.errors import TooMany
from server.history.accounts import still_valid
from server.history.database import Database, DatabaseAway
from server.identity.callers import Caller
from server.logs import log

CHECK_EVERY_S = 2.0
CHECKED_PER_READ = 500


class Presence:
    """The open streams of this process."""

    def __init__(self, database: Database, streams_max_per_account: int) -> None:
        self._database, self._streams_max = database, streams_max_per_account
        self._streams: dict[Caller, set[Callable[[], None]]] = {}
        self._by_account: Counter[str] = Counter()

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return self._by_account.total()

    def check_room(self, caller: Caller) -> None:
        """Raises TooMany when the account has as many streams open as it may have."""
        opened, limit = self._by_account[caller.account_id], self._streams_max
        if opened >= limit:
            detail = f"This account has {opened} streams open; the limit is {limit}."
            raise TooMany("too_many_streams", detail, limit=limit, retry_after_s=1)

    @contextmanager
    def stream(self, caller: Caller, end: Callable[[], None]) -> Iterator[None]:
        """Calls `end` if the credential expires or is revoked while the context is open."""
        self._streams.setdefault(caller, set()).add(end)
        self._by_account[caller.account_id] += 1
        try:
            yield
        finally:
            ends = self._streams[caller]
            ends.discard(end)
            if not ends:
                del self._streams[caller]
            self._by_account[caller.account_id] -= 1
            if not self._by_account[caller.account_id]:
                del self._by_account[caller.account_id]

    async def run(self) -> None:
        """Checks every credential that has a stream open, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            if not self._streams:
                continue
            callers = list(self._streams)
            try:
                for start in range(0, len(callers), CHECKED_PER_READ):
                    await self._check(callers[start : start + CHECKED_PER_READ])
            except DatabaseAway as error:
                log.warning("unavailable", doing="presence", reason=str(error))

    async def _check(self, callers: list[Caller]) -> None:
        keys = [caller.key_id for caller in callers if caller.key_id]
        sessions = [caller.session_sha256 for caller in callers if caller.session_sha256]
        valid = await self._database.read(still_valid, keys, sessions)
        for caller in callers:
            if (caller.key_id or caller.session_sha256) not in valid:
                for end in list(self._streams.get(caller, ())):
                    end()
