"""The resources of a process, opened in order and closed in reverse."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from arq.connections import ArqRedis

from server.changes.follower import Changes
from server.changes.watches import Announcer
from server.history.database import Database, Pool, open_database
from server.identity.search_slots import SearchSlots
from server.ids import Prefix, new_id
from server.lifecycle.queue import Queue, open_redis
from server.lifecycle.settling import Settler
from server.providers.registry import Models
from server.settings import Settings
from server.stream.feed import Feeds


@dataclass(frozen=True)
class Resources:
    """The resources of web and worker processes; `name` is their owner name in claims."""

    name: str
    settings: Settings
    models: Models
    database: Database
    redis: ArqRedis
    queue: Queue
    settler: Settler
    announcer: Announcer


@dataclass(frozen=True)
class Services(Resources):
    """The resources of verbs: those of a web process, with its feeds."""

    feeds: Feeds
    changes: Changes
    search_slots: SearchSlots = field(default_factory=SearchSlots)


@asynccontextmanager
async def open_resources(settings: Settings, name: str = "") -> AsyncIterator[Resources]:
    """Opens the database, Redis and what uses both. Connects on first use."""
    name = name or new_id(Prefix.WORKER)
    redis = open_redis(settings.redis_url)
    limits, key_prefix = settings.generation, settings.redis.key_prefix
    try:
        announcer = Announcer(redis, key_prefix)
        pool = Pool(settings.database.pool_size, settings.database.pool_wait_s)
        async with open_database(settings.database_url, announcer.publish, pool=pool) as database:
            settler = Settler(
                f"{name}-settler",
                database,
                redis,
                key_prefix=key_prefix,
                ttl_s=limits.deadline_s + limits.retention_s,
                retention_s=limits.retention_s,
            )
            queue = Queue(redis, key_prefix)
            models = Models(settings)
            yield Resources(name, settings, models, database, redis, queue, settler, announcer)
    finally:
        await redis.aclose(close_connection_pool=True)
