"""Change numbers: published after a commit, and watched for accounts with a change stream open here.

Nothing depends on a published number: watches also poll.
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
        """Has these changes published: account ids and change numbers."""
        self._changed |= changed
        self._due.set()

    async def run(self) -> None:
        """Publishes until cancelled. What cannot be published now is not published."""
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
                log.warning("changes_not_announced", reason=str(error))


class Watch:
    """The last change of one account, and its readers."""

    def __init__(self) -> None:
        self.change = 0
        self.pages: set[Reader] = set()

    def advance(self, change: int) -> None:
        """Records a change number, and wakes the readers if it is a new one."""
        if change > self.change:
            self.change = change
            for page in self.pages:
                page.wake()


class Reader:
    """Waits for changes, for events, and for the end of the process, for one reader."""

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
    def watch(self, account_id: str, page: Reader) -> Iterator[Watch]:
        """The watch of an account, which wakes `page` at every change while the context is open."""
        channel = _channel(self._key_prefix, account_id)
        watch = self._watches.get(account_id)
        if watch is None:
            watch = self._watches[account_id] = Watch()
            self._tail.listen(
                channel,
                Listener(
                    lambda: self._loop.look_at(account_id),
                    lambda change: self._receive(account_id, change),
                ),
            )
        watch.pages.add(page)
        try:
            yield watch
        finally:
            watch.pages.discard(page)
            if not watch.pages:
                del self._watches[account_id]
                self._tail.leave(channel)

    def stop(self) -> None:
        """Ends every page's stream between two events."""
        self.stopping = True
        for watch in self._watches.values():
            for page in watch.pages:
                page.wake()

    async def run(self) -> None:
        """Reads the change numbers of watched accounts every 2 s, or at once after a reconnection."""
        await self._loop.run()

    async def _check(self, account_ids: list[str]) -> None:
        try:
            changes = await self._database.read(account_changes, account_ids)
        except DatabaseAway as error:
            log.warning("away", doing="watch", reason=str(error))
            return
        for account_id, change in changes.items():
            if watch := self._watches.get(account_id):
                watch.advance(change)

    def _receive(self, account_id: str, change: bytes) -> None:
        if watch := self._watches.get(account_id):
            watch.advance(int(change))
