"""`tidemark up`: everything on this machine, supervised by one process.

Children are restarted with back-off; the answers of a dead worker are released at once. Children
run in sessions of their own, so that Ctrl-C reaches only this process, and end by themselves when
the pipe they inherit closes.
"""

import asyncio
import fcntl
import os
import signal
import socket
import sys
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic

from rich.console import Console
from rich.markup import escape

from server.command.devkey import write_dev_key
from server.command.process import (
    PARENT_FD,
    SOCKET_FD,
    WORKER_NAME,
    raise_descriptor_limit,
)
from server.errors import StartError
from server.history.claims import release_dead
from server.history.database import Database, DatabaseAway, open_database
from server.history.schema import migrate
from server.ids import Prefix, new_id
from server.lifecycle.queue import Queue, open_redis
from server.logs import log
from server.providers.registry import Models
from server.serve.listening import address_of, listen
from server.settings import Settings

DRAIN_S = 2.0
END_WITHIN_S = 8.0
READY_WITHIN_S = 60.0
HEALTHY_AFTER_S = 5.0
BACK_OFF_MAX_S = 10.0

console = Console(stderr=True, highlight=False)


class Child:
    """One process that is kept running."""

    def __init__(
        self,
        name: str,
        arguments: list[str],
        *,
        environment: Callable[[], dict[str, str]],
        fds: tuple[int, ...],
    ) -> None:
        self.name, self.worker_name = name, ""
        self._arguments, self._environment, self._fds = arguments, environment, fds
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        environment = os.environ | self._environment()
        self.worker_name = environment.get(WORKER_NAME, "")
        self.process = await asyncio.create_subprocess_exec(
            *self._arguments, env=environment, pass_fds=self._fds, start_new_session=True
        )

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)


class Up:
    """The supervisor. `run` returns the exit code."""

    def __init__(
        self, settings: Settings, flags: list[str], listening: socket.socket, database: Database
    ) -> None:
        self._settings, self._listening, self._database = settings, listening, database
        self._redis = open_redis(settings.redis_url, connections=2)
        self._queue = Queue(self._redis, settings.redis.key_prefix)
        self._stopping, self._ready = asyncio.Event(), False
        self._interrupts = 0
        self._failed: str | None = None
        self._pipe = os.pipe()
        self._children = self._make_children(flags)

    def _make_children(self, flags: list[str]) -> list[Child]:
        program = [sys.executable, "-m", "server"]
        alive, listening = self._pipe[0], self._listening.fileno()
        children = []
        if self._settings.embedded_redis:
            children.append(Child("redis", [*program, "redis", *flags], environment=dict, fds=()))
        for _ in range(self._settings.server.processes):
            host, port = self._settings.server.host, self._settings.server.port
            environment = {
                PARENT_FD: str(alive),
                SOCKET_FD: str(listening),
                "TIDEMARK_SERVER__HOST": host,
                "TIDEMARK_SERVER__PORT": str(port),
            }
            children.append(
                Child(
                    "web",
                    [*program, "web", *flags],
                    environment=lambda e=environment: e,  # type: ignore[misc]
                    fds=(alive, listening),
                )
            )
        worker = [*program, "worker", *flags]
        children += [
            Child(
                "worker", worker, environment=lambda: self._worker_environment(alive), fds=(alive,)
            )
            for _ in range(self._settings.worker.processes)
        ]
        return children

    def _worker_environment(self, alive: int) -> dict[str, str]:
        drain_s = min(DRAIN_S, self._settings.worker.drain_s)
        return {
            PARENT_FD: str(alive),
            WORKER_NAME: new_id(Prefix.WORKER),
            "TIDEMARK_WORKER__DRAIN_S": str(drain_s),
            # Whether `demo` is offered depends on it, in workers too.
            "TIDEMARK_SERVER__HOST": self._settings.server.host,
        }

    async def run(self, *, open_page: bool) -> int:
        """Starts everything, prints the address, and keeps it running until interrupted."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt)
        try:
            async with asyncio.TaskGroup() as tasks:
                working = [tasks.create_task(self._keep(child)) for child in self._children]
                working.append(tasks.create_task(self._announce(open_page=open_page)))
                await self._stopping.wait()
                for task in working:
                    task.cancel()
        finally:
            await self._end([child for child in self._children if child.name != "redis"])
            await self._end([child for child in self._children if child.name == "redis"])
            await self._redis.aclose(close_connection_pool=True)
        if self._failed:
            raise StartError(self._failed)
        return 0

    def _interrupt(self) -> None:
        self._interrupts += 1
        if self._interrupts > 1:
            for child in self._children:
                child.signal(signal.SIGKILL)
        elif not self._stopping.is_set():
            console.print("[dim]Stopping … (Ctrl-C again to stop at once)[/]")
            self._stopping.set()

    async def _keep(self, child: Child) -> None:
        """Runs a child, and restarts it when it ends by itself."""
        back_off_s = 0.0
        while not self._stopping.is_set():
            started = monotonic()
            await child.start()
            assert child.process is not None
            code = await child.process.wait()
            if self._stopping.is_set():
                return
            if code and code > 0 and not self._ready:
                where = (
                    f"in {self._settings.data_dir / 'redis' / 'valkey.log'}"
                    if child.name == "redis"
                    else "above"
                )
                self._failed = f"The {child.name} process could not start; its output is {where}."
                self._stopping.set()
                return
            log.warning("child_ended", child=child.name, pid=child.process.pid, code=code)
            if child.worker_name:
                await self._release(child.worker_name)
            back_off_s = (
                0.0
                if monotonic() - started > HEALTHY_AFTER_S
                else min(BACK_OFF_MAX_S, max(0.1, back_off_s * 2))
            )
            await asyncio.sleep(back_off_s)

    async def _release(self, worker_name: str) -> None:
        """Releases the answers of a dead worker, so that another one continues them at once."""
        try:
            for generation_id in await self._database.write(release_dead, worker_name):
                await self._queue.put(generation_id)
        except DatabaseAway as error:
            log.warning(
                "release_failed", worker=worker_name, reason=str(error)
            )  # the sweep will find them

    async def _announce(self, *, open_page: bool) -> None:
        """Migrates, waits until the web process answers, and prints the address."""
        try:
            await migrate(self._settings.database_url)
            key_file = await write_dev_key(self._database, self._settings)
            await self._answers()
        except StartError as error:
            self._failed = str(error)
            self._stopping.set()
            return
        self._ready = True
        address = self._settings.server.public_url or address_of(self._listening)
        console.print(f"[bold]Tidemark[/] serves [bold]{address}[/]  [dim](Ctrl-C stops it)[/]")
        console.print(f"[dim]{self._about_models()}[/]")
        if key_file is not None:
            console.print(
                f"[dim]An API key for this machine is in {escape(str(key_file))}[/]", soft_wrap=True
            )
        if open_page:
            await asyncio.to_thread(webbrowser.open, address)

    async def _answers(self) -> None:
        deadline = monotonic() + READY_WITHIN_S
        host, port = self._listening.getsockname()[:2]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  to connect to, not to listen on
        while True:
            try:
                async with asyncio.timeout(READY_WITHIN_S):
                    reader, writer = await asyncio.open_connection(host, port)
                    writer.write(
                        b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
                    )
                    answer = await reader.read(64)
                    writer.close()
                if answer.startswith(b"HTTP/1.1 200"):
                    return
            except (OSError, TimeoutError):
                pass
            if monotonic() > deadline:
                raise StartError(f"The web process did not answer within {READY_WITHIN_S:g} s.")
            await asyncio.sleep(0.02)

    def _about_models(self) -> str:
        models = Models(self._settings)
        off = [
            f"{name} is off: {provider.api_key_env or provider.api_key_file} is not set"
            for name, provider in self._settings.providers.items()
            if provider.wants_key and not provider.api_key()
        ]
        return "; ".join([f"Model: {models.default.id}", *off]) + "."

    async def _end(self, children: list[Child]) -> None:
        for child in children:
            child.signal(signal.SIGTERM)
        running = [child.process.wait() for child in children if child.process is not None]
        with suppress(TimeoutError):
            async with asyncio.timeout(END_WITHIN_S):
                await asyncio.gather(*running)
        for child in children:
            child.signal(signal.SIGKILL)
        await asyncio.gather(
            *(child.process.wait() for child in children if child.process is not None)
        )


def run_up(settings: Settings, flags: list[str], *, open_page: bool) -> int:
    """Runs everything until interrupted, and returns the exit code. Raises StartError."""
    raise_descriptor_limit()
    Models(settings)  # raises SettingsError for a default model that is not offered
    with (
        _data_folder(settings.data_dir),
        listen(settings.server.host, settings.server.port) as listening,
    ):
        return asyncio.run(_run(settings, flags, listening, open_page=open_page))


async def _run(
    settings: Settings, flags: list[str], listening: socket.socket, *, open_page: bool
) -> int:
    async with open_database(settings.database_url) as database:
        return await Up(settings, flags, listening, database).run(open_page=open_page)


def _try_to_write(probe: Path) -> None:
    """Detects a full disk before the first message does."""
    try:
        probe.write_bytes(b"x" * 65_536)
    finally:
        probe.unlink(missing_ok=True)


@contextmanager
def _data_folder(folder: Path) -> Iterator[None]:
    """Creates the data folder if needed, and locks it against a second `up`. Raises StartError."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (folder / "lock").open("a")
        _try_to_write(folder / "probe")
    except OSError as error:
        raise StartError(f"The data folder {folder} cannot be written: {error.strerror}.") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StartError(f"Another `tidemark up` is running in {folder}.") from None
        yield
