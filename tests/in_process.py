"""An installation inside the test's process: the real application and a real worker in a thread."""

import asyncio
import socket
import threading
from pathlib import Path
from typing import Any, Self

import uvicorn

from server.app import build_app
from server.serve.protocol import BoundedProtocol
from server.serve.web_socket import LingeringSocket
from server.worker import build_worker
from tests.installation import Installation
from tests.waiting import condition

START_MAX_S = 30
STOP_MAX_S = 10


class InProcess(Installation):
    """One web server and one worker on an event loop of their own, on SQLite."""

    def __init__(
        self, folder: Path, redis_url: str, settings: dict[str, Any] | None = None
    ) -> None:
        settings = dict(settings or {})
        settings["redis"] = {"url": redis_url, "key_prefix": f"{folder.name}:"}
        super().__init__(folder, settings)
        self.url = ""
        self._started, self._failure = threading.Event(), None
        self._thread = threading.Thread(target=self._main, daemon=True)

    def __enter__(self) -> Self:
        self.migrate()
        self._thread.start()
        assert self._started.wait(START_MAX_S), "the installation did not start"
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(STOP_MAX_S)
        assert not self._thread.is_alive(), "the installation did not stop"
        if self._failure is not None:
            raise self._failure

    def _main(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:  # the test's thread raises it
            self._failure = error
        finally:
            self._started.set()

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        settings = self.settings
        app = build_app(settings)
        config = uvicorn.Config(
            app,
            http=BoundedProtocol,
            ws=LingeringSocket,
            lifespan="on",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            async with build_worker(settings) as worker, asyncio.TaskGroup() as tasks:
                tasks.create_task(worker.run(self._stop))
                serving = tasks.create_task(server.serve([listening]))
                await condition(lambda: server.started or serving.done())
                self._started.set()
                await self._stop.wait()
                app.state.stop()
                server.should_exit = True
