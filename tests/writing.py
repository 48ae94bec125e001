"""A log writer that runs in the test's process."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from server.generate.owned_log import OwnedLog
from server.generate.writer import LogWriter
from server.history.claims import Fence
from server.stream.events import FIRST_SEQ
from server.stream.log import log_keys
from tests.steady_heartbeat import SteadyHeartbeat


class Writing:
    """A running log writer and its logs."""

    def __init__(self, url: str, key_prefix: str) -> None:
        self._key_prefix = key_prefix
        self.writer = LogWriter(url, SteadyHeartbeat(), self._confirm, retention_s=60)
        self.confirmed: list[str] = []
        self._tasks = [asyncio.create_task(run()) for run in (self.writer.run, self.writer.confirm)]

    async def _confirm(self, fences: Sequence[Fence]) -> set[Fence]:
        self.confirmed += [fence.generation_id for fence in fences]
        return set(fences)

    def add(self, id: str) -> OwnedLog:
        owned = OwnedLog(
            Fence(id, "wrk", 1),
            log_keys(self._key_prefix, id),
            ttl_s=60,
            checkpoint_seq=FIRST_SEQ,
            handed_over=False,
            dirty=self.writer.dirty,
        )
        self.writer.add(owned, 0)
        return owned

    def end(self) -> None:
        for task in self._tasks:
            task.cancel()


@asynccontextmanager
async def running_writer(url: str, key_prefix: str) -> AsyncIterator[Writing]:
    """A writer that ends with the context, which has to end within 20 s."""
    writing = Writing(url, key_prefix)
    try:
        async with asyncio.timeout(20):
            yield writing
    finally:
        writing.end()
