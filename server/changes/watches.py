"""Change numbers: published after commits, and watched for the accounts with an open change feed.

Nothing depends on the published messages: watches also poll.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from redis.asyncio import Redis
from redis.exceptions import RedisError

from server.history.changes import account_changes
from server.history.database import Database, DatabaseAway
from server.logs import log
from server.loops import DueLoop
from server.stream.tail import Listener, Tail

CHECK_EVERY_S = 2.0
CHECKED_AT_ONCE = 500


def _channel(key_prefix: str, account_id: str) -> bytes:
    return f"{key_prefix}account:{account_id}".encode()


class Announcer:
    """Publishes changes of this process, soon after their commit."""

    def __init__(self, redis: Redis, key_prefix: str) -> None:
        self._redis, self._key_prefix = redis, key_prefix
        self._changed: dict[str, int] = {}
        self._due = asyncio.Event()

    def publish(self, changed: dict[str, int]) -> None:
        """Schedules the publication of these change numbers, by account id."""
        for account_id, change in changed.items():  # commits may be reported out of order
            self._changed[account_id] = max(change, self._changed.get(account_id, 0))
        self._due.set()

    async def run(self) -> None:
        """Publishes until cancelled. Changes that cannot be published are dropped: pages poll."""
        while True:
            await self._due.wait()
            self._due.clear()
            changed, self._changed = self._changed, {}
            pipeline = self._redis.pipeline(transaction=False)
            for account_id, change in changed.items():
                pipeline.publish(_channel(self._key_prefix, account_id), change)
            try:
                await pipeline.execute()
            except RedisError as error:
                log.warning("changes_not_published", reason=str(error))


class Watch:
    """The last change of one account, and its readers."""

    def __init__(self) -> None:
        self.change = 0
        self.readers: set[Reader] = set()

    def advance(self, change: int) -> None:
        """Records a change number, and wakes the readers if it is a new one."""
        if change > self.change:
            self.change = change
            for reader in self.readers:
                reader.wake()


class Reader:
    """Waits for changes, events and the stop of the process, for one reader."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Ends the wait."""
        self._woken.set()

    async def wait(self, for_s: float | None) -> None:
        """Waits until it is woken, or for `for_s` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(for_s):
                await self._woken.wait()
        self._woken.clear()


class Watches:
    """All watches of this process."""

    def __init__(self, database: Database, tail: Tail, key_prefix: str) -> None:
        self.stopping = False
        self._database, self._tail, self._key_prefix = database, tail, key_prefix
        self._watches: dict[str, Watch] = {}
        self._loop = DueLoop(
            lambda: list(self._watches),
            self._check,
            every_s=CHECK_EVERY_S,
            at_once=CHECKED_AT_ONCE,
        )

    @contextmanager
    def watch(self, account_id: str, reader: Reader) -> Iterator[Watch]:
        """The watch of an account; wakes `reader` at every change while the context is open."""
        channel = _channel(self._key_prefix, account_id)
        watch = self._watches.get(account_id)
        if watch is None:
            watch = self._watches[account_id] = Watch()
            self._tail.listen(
                channel,
                Listener(
                    lambda: self._loop.check_soon(account_id),
                    lambda change: self._receive(account_id, change),
                ),
            )
        watch.readers.add(reader)
        try:
            yield watch
        finally:
            watch.readers.discard(reader)
            if not watch.readers:
                del self._watches[account_id]
                self._tail.leave(channel)

    def stop(self) -> None:
        """Ends every change feed between two events."""
        self.stopping = True
        for watch in self._watches.values():
            for reader in watch.readers:
                reader.wake()

    async def run(self) -> None:
        """Reads change numbers every 2 s, and at once after a reconnection, until cancelled."""
        await self._loop.run()

    async def _check(self, account_ids: list[str]) -> None:
        try:
            changes = await self._database.read(account_changes, account_ids)
        except DatabaseAway as error:
            log.warning("unavailable", doing="watch", reason=str(error))
            return
        for account_id, change in changes.items():
            if watch := self._watches.get(account_id):
                watch.advance(change)

    def _receive(self, account_id: str, change: bytes) -> None:
        if watch := self._watches.get(account_id):
            watch.advance(int(change))
