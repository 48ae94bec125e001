"""`tidemark up` in a new folder, as after the installation."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from server.bench.errors import MeasureError
from server.bench.load import Load, load
from server.bench.processes import (
    Running,
    free_port,
    raise_descriptor_limit,
    temporary_folder,
)
from server.bench.service import Server, connected, ready
from server.bench.usage import descendants


class Up:
    """A running `up`, when it was started and ready (`time.monotonic_ns()`), and a reader."""

    def __init__(
        self, server: Server, process: Running, reader: Load, *, started_ns: int, ready_ns: int
    ) -> None:
        self.server, self.process, self.reader = server, process, reader
        self.started_ns, self.ready_ns = started_ns, ready_ns

    def child(self, name: str) -> Any:
        """One of its processes: `web`, `worker` or `valkey`. Raises MeasureError if none runs."""
        for child in descendants(self.process.pid):
            if name in child.name():
                return child
        raise MeasureError(f"`up` has no {name} process.{self.process.log_tail()}")


@asynccontextmanager
async def up() -> AsyncIterator[Up]:
    """Starts it and waits until it is ready. Its development key is in `server.keys`."""
    raise_descriptor_limit()
    async with temporary_folder() as folder:
        port = free_port()
        folder.set({"SERVER__PORT": str(port), "GENERATION__DEFAULT_MODEL": "demo"})
        async with connected("127.0.0.1", port, []) as server, load(folder, server) as reader:
            started_ns = time.monotonic_ns()
            process = await folder.start("up", "server", "up", "--data-dir", str(folder.data))
            await ready(server, process)
            ready_ns = time.monotonic_ns()
            try:
                server.keys.append((folder.data / "dev-key").read_text().strip())
            except FileNotFoundError:
                raise MeasureError(f"`up` wrote no dev-key.{process.log_tail()}") from None
            yield Up(server, process, reader, started_ns=started_ns, ready_ns=ready_ns)
            process.check()
