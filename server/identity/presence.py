"""Presence: the open streams of this process, by the credential that opened them.

They end within 5 s of its revocation or expiry.
"""

import asyncio
from collections import Counter
from collections.abc import Callable

from server.errors import TooMany
from server.history.accounts import still_valid
from server.history.database import Database, DatabaseAway
from server.identity.callers import Caller
from server.logs import log

CHECK_EVERY_S = 2.0
CHECKED_PER_READ = 500


class Slot:
    """One stream of an account, which counts from its reservation until it is released."""

    def __init__(self, caller: Caller, release: Callable[["Slot"], None]) -> None:
        self.caller, self._release = caller, release
        self.end: Callable[[], None] | None = None
        """Called once the caller's credential is no longer valid."""

    def release(self) -> None:
        """Makes room for another stream; idempotent."""
        self._release(self)


class Presence:
    """The open streams of this process."""

    def __init__(self, database: Database, streams_max_per_account: int) -> None:
        self._database, self._streams_max = database, streams_max_per_account
        self._slots: dict[Caller, set[Slot]] = {}
        self._by_account: Counter[str] = Counter()

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return self._by_account.total()

    def reserve(self, caller: Caller) -> Slot:
        """A slot for one more stream of the account; raises TooMany at its limit."""
        opened, limit = self._by_account[caller.account_id], self._streams_max
        if opened >= limit:
            detail = f"This account has {opened} streams open; the limit is {limit}."
            raise TooMany("too_many_streams", detail, limit=limit, retry_after_s=1)
        slot = Slot(caller, self._release)
        self._slots.setdefault(caller, set()).add(slot)
        self._by_account[caller.account_id] += 1
        return slot

    def _release(self, slot: Slot) -> None:
        slots = self._slots.get(slot.caller, set())
        if slot not in slots:
            return
        slots.remove(slot)
        if not slots:
            del self._slots[slot.caller]
        account_id = slot.caller.account_id
        self._by_account[account_id] -= 1
        if not self._by_account[account_id]:
            del self._by_account[account_id]

    async def run(self) -> None:
        """Checks every credential that has a stream open, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            if not self._slots:
                continue
            callers = list(self._slots)
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
                for slot in list(self._slots.get(caller, ())):
                    if slot.end is not None:
                        slot.end()
