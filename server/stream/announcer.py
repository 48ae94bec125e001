"""Publishes that an account has changed, so that its pages read the changes at once.

Nothing depends on these messages: pages also poll.
"""

import asyncio

from redis.asyncio import Redis
from redis.exceptions import RedisError

from server.logs import log


def account_channel(key_prefix: str, account_id: str) -> bytes:
    """The channel on which the change numbers of an account are published."""
    return f"{key_prefix}account:{account_id}".encode()


class Announcer:
    """Publishes changes of this process, soon after their commit."""

    def __init__(self, redis: Redis, key_prefix: str) -> None:
        self._redis, self._key_prefix = redis, key_prefix
        self._changed: dict[str, int] = {}
        self._due = asyncio.Event()

    def publish(self, changed: dict[str, int]) -> None:
        """Schedules the publication of these change numbers, by account id."""
        self._changed |= changed
        self._due.set()

    async def run(self) -> None:
        """Publishes until cancelled. Changes that cannot be published are dropped: pages poll."""
        while True:
            await self._due.wait()
            self._due.clear()
            changed, self._changed = self._changed, {}
            pipeline = self._redis.pipeline(transaction=False)
            for account_id, change in changed.items():
                pipeline.publish(account_channel(self._key_prefix, account_id), change)
            try:
                await pipeline.execute()
            except RedisError as error:
                log.warning("changes_not_published", reason=str(error))
