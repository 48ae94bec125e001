"""Presence: the streams that are open, by the credential that opened them. They end within 5 s of its revocation or expiry."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from server.history.accounts import still_valid
from server.history.database import Database, DatabaseAway
from server.identity.callers import Caller
from server.logs import log

CHECK_EVERY_S = 2.0
CHECKED_AT_ONCE = 500


class Presence:
    """The open streams of this process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._streams: dict[Caller, set[Callable[[], None]]] = {}

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return sum(map(len, self._streams.values()))

    @contextmanager
    def stream(self, caller: Caller, end: Callable[[], None]) -> Iterator[None]:
        """While this is open, `end` is called once the caller may not listen any more."""
        self._streams.setdefault(caller, set()).add(end)
        try:
            yield
        finally:
            ends = self._streams[caller]
            ends.discard(end)
            if not ends:
                del self._streams[caller]

    async def run(self) -> None:
        """Checks every credential that has a stream open, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            if not self._streams:
                continue
            callers = list(self._streams)
            try:
                for start in range(0, len(callers), CHECKED_AT_ONCE):
                    await self._check(callers[start : start + CHECKED_AT_ONCE])
            except DatabaseAway as error:
                log.warning("away", doing="presence", reason=str(error))

    async def _check(self, callers: list[Caller]) -> None:
        keys = [caller.key_id for caller in callers if caller.key_id]
        sessions = [caller.session_sha256 for caller in callers if caller.session_sha256]
        valid = await self._database.read(still_valid, keys, sessions)
        for caller in callers:
            if (caller.key_id or caller.session_sha256) not in valid:
                for end in list(self._streams.get(caller, ())):
                    end()
