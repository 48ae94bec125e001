"""The worker process: writes answers, and takes over those of dead workers."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import orjson
from redis.exceptions import RedisError

from server.generate.arq_worker import QueueWorker
from server.generate.ownership import Ownership
from server.generate.titling import Titler
from server.history.chores import delete_expired
from server.history.database import DatabaseAway
from server.history.search import account_with_index_due, index_moved
from server.history.titles import due_titles
from server.lifecycle.queue import (
    GENERATE,
    TITLE,
    JobClient,
    answers_queue,
    chores_queue,
    control_channel,
    worker_key,
)
from server.logs import log
from server.loops import keep
from server.providers.base import Provider
from server.providers.registry import adjusted_models, open_providers
from server.resources import Resources, open_resources
from server.settings import Settings
from server.stream.tail import Listener, Tail

REPORT_EVERY_S = 2.0
REPORT_KEPT_S = 6
CHORES_EVERY_S = 600
INDEX_EVERY_S = 2.0
INDEX_PAUSE_S = 0.1
CHORES_SLOTS = 2
OWNED_PER_SLOT = 4
"""How many answers a worker owns at most for each slot: those it takes over wait for none."""


class Worker:
    """One worker process: `run` works until `stop` is set, then drains."""

    def __init__(
        self,
        resources: Resources,
        ownership: Ownership,
        titler: Titler,
        providers: Mapping[str, Provider],
    ) -> None:
        settings = resources.settings
        self._resources, self._ownership, self._providers = resources, ownership, providers
        self._tail = Tail(settings.redis_url)
        key_prefix, slots = settings.redis.key_prefix, settings.worker.concurrency
        jobs = JobClient(resources.redis, key_prefix)
        self._answers = QueueWorker(
            jobs, answers_queue(key_prefix), GENERATE, ownership.take, slots=slots
        )
        self._titles = QueueWorker(
            jobs, chores_queue(key_prefix), TITLE, titler.title, slots=CHORES_SLOTS
        )
        self._queues = (
            [self._answers, self._titles] if settings.generation.titles else [self._answers]
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set; returns when every answer has ended or was handed over."""
        channel = control_channel(self._resources.settings.redis.key_prefix, self._ownership.owner)
        self._tail.listen(
            channel, Listener(lambda: None, lambda id: self._ownership.stop(id.decode()))
        )
        async with self._ownership.heartbeat.beating(stop), asyncio.TaskGroup() as tasks:
            for queue in self._queues:
                tasks.create_task(queue.main())
            steps = (
                self._tail.run,
                self._ownership.run,
                self._resources.announcer.run,
                self._report,
                self._do_chores,
                self._index_moved,
            )
            always = [tasks.create_task(keep(step)) for step in steps]
            await stop.wait()
            log.info("draining", answers=len(self._ownership))
            for queue in self._queues:
                queue.stop_taking()
            await self._ownership.drain(self._resources.settings.worker.drain_s)
            await self._titles.end()
            for task in always:
                task.cancel()

    async def _do_chores(self) -> None:
        while True:
            try:
                while await self._resources.database.write(delete_expired):
                    pass
                if self._resources.settings.generation.titles:
                    for conversation_id in await self._resources.database.read(due_titles):
                        await self._resources.queue.put_title(conversation_id)
            except DatabaseAway as error:
                log.warning("unavailable", doing="chores", reason=str(error))
            await asyncio.sleep(CHORES_EVERY_S)

    async def _index_moved(self) -> None:
        """Indexes the conversations that users brought from guests, with pauses for others."""
        database = self._resources.database
        while True:
            pause_s = INDEX_EVERY_S
            try:
                if account_id := await database.read(account_with_index_due):
                    await database.write(index_moved, account_id)
                    pause_s = INDEX_PAUSE_S
            except DatabaseAway as error:
                log.warning("unavailable", doing="index", reason=str(error))
            await asyncio.sleep(pause_s)

    async def _report(self) -> None:
        """Reports this worker to /status."""
        settings = self._resources.settings
        key = worker_key(settings.redis.key_prefix, self._ownership.owner)
        while True:
            report = {
                "id": self._ownership.owner,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "answers": len(self._ownership),
                "slots": settings.worker.concurrency,
                "draining": self._ownership.draining,
                "adjusted_models": adjusted_models(self._providers),
            }
            try:
                await self._resources.redis.set(key, orjson.dumps(report), ex=REPORT_KEPT_S)
            except RedisError as error:
                log.warning("unavailable", doing="report", reason=str(error))
            await asyncio.sleep(REPORT_EVERY_S)


@asynccontextmanager
async def build_worker(settings: Settings, name: str = "") -> AsyncIterator[Worker]:
    """A worker with its resources; `name` is its owner name in claims."""
    async with open_resources(settings, name) as resources, open_providers(settings) as providers:
        ownership = Ownership(
            resources.name,
            resources.database,
            resources.queue,
            resources.settler,
            providers,
            resources.models,
            url=settings.redis_url,
            database_url=settings.database_url,
            lease_s=settings.worker.lease_s,
            owned_max=OWNED_PER_SLOT * settings.worker.concurrency,
            key_prefix=settings.redis.key_prefix,
            limits=settings.generation,
        )
        titler = Titler(resources.database, providers, resources.models)
        yield Worker(resources, ownership, titler, providers)
