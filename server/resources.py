"""What a process holds open, opened in order and closed in reverse."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from arq.connections import ArqRedis

from server.generate.queue import Queue, open_redis
from server.generate.settling import Settler
from server.history.database import Database, open_database
from server.history.exchange import Asker
from server.ids import Prefix, new_id
from server.providers.registry import Models
from server.settings import Settings
from server.stream.announcer import Announcer


@dataclass(frozen=True)
class Resources:
    """What web and worker processes have in common. `name` is the owner of whatever this process claims."""

    name: str
    settings: Settings
    models: Models
    database: Database
    redis: ArqRedis
    queue: Queue
    settler: Settler
    announcer: Announcer

    def asker(self, account_id: str, key: str | None) -> Asker:
        """An account that asks for an answer, within its limit, once per key."""
        return Asker(
            account_id, self.models.id_of, self.settings.generation.active_max_per_account, key
        )


@asynccontextmanager
async def open_resources(settings: Settings, name: str = "") -> AsyncIterator[Resources]:
    """The database, Redis and what works on both. Opens no connection yet."""
    name = name or new_id(Prefix.WORKER)
    redis = open_redis(settings.redis_url)
    limits, key_prefix = settings.generation, settings.redis.key_prefix
    try:
        announcer = Announcer(redis, key_prefix)
        async with open_database(settings.database_url, announcer.tell) as database:
            settler = Settler(
                name,
                database,
                redis,
                key_prefix=key_prefix,
                ttl_s=limits.deadline_s + limits.retention_s,
                retention_s=limits.retention_s,
            )
            yield Resources(
                name,
                settings,
                Models(settings),
                database,
                redis,
                Queue(redis, key_prefix),
                settler,
                announcer,
            )
    finally:
        await redis.aclose(close_connection_pool=True)
