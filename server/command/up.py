"""`tidemark up`: everything on this machine, supervised by one process.

Processes that die are started again; what a dead worker owned is free at once.
"""

import asyncio
import fcntl
import gc
import socket
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import monotonic

from rich.console import Console
from rich.markup import escape

from server.command.devkey import dev_key_file, write_dev_key
from server.command.process import raise_descriptor_limit
from server.command.supervisor import Child, Run, Supervisor
from server.errors import StartError
from server.history.database import open_database
from server.history.schema import migrate
from server.providers.registry import Models
from server.serve.listening import address_of, listen
from server.settings import LOOPBACK_HOSTS, Settings

DRAIN_S = 2.0
END_WITHIN_S = 8.0
READY_WITHIN_S = 60.0

console = Console(stderr=True, highlight=False)


def run_up(settings: Settings, *, open_page: bool) -> int:
    """Runs everything until interrupted, and returns the exit code. Raises StartError."""
    raise_descriptor_limit()
    with (
        _data_folder(settings.data_dir) as lock,
        listen(settings.server.host, settings.server.port) as listening,
    ):
        children = _children(settings, listening)
        supervisor = Supervisor(children, end_within_s=END_WITHIN_S, private_fds=(lock,))
        return supervisor.run(
            partial(_prepare, settings),
            partial(_announce, settings, listening, open_page=open_page),
        )


def _children(settings: Settings, listening: socket.socket) -> list[Child]:
    """Imports everything that the children run, once."""
    gc.disable()  # imports make many objects and no garbage; children enable it again
    from server.command.redis import run_redis
    from server.command.web import web_child
    from server.command.worker import worker_child

    drain_s = min(DRAIN_S, settings.worker.drain_s)
    worker = settings.model_copy(
        update={"worker": settings.worker.model_copy(update={"drain_s": drain_s})}
    )
    web = settings.model_copy(
        update={"server": settings.server.model_copy(update={"shutdown_delay_s": 0})}
    )
    redis_log = settings.data_dir / "redis" / "valkey.log"
    redis = Child("redis", lambda: Run(partial(run_redis, settings)), base=True, log=redis_log)
    return [
        *([redis] if settings.embedded_redis else []),
        *(web_child(web, listening) for _ in range(settings.server.processes)),
        *(worker_child(worker) for _ in range(settings.worker.processes)),
    ]


def _prepare(settings: Settings) -> None:
    """Migrates the database, and writes the development key. Raises StartError."""
    asyncio.run(_prepare_database(settings))


async def _prepare_database(settings: Settings) -> None:
    await migrate(settings.database_url)
    if settings.server.host in LOOPBACK_HOSTS:
        async with open_database(settings.database_url) as database:
            await write_dev_key(database, settings.data_dir)


def _announce(settings: Settings, listening: socket.socket, *, open_page: bool) -> None:
    """Waits until the web process answers, and prints the address. Raises StartError."""
    asyncio.run(_wait_until_ready(listening))
    address = settings.server.public_url or address_of(listening)
    console.print(f"[bold]Tidemark[/] serves [bold]{address}[/]  [dim](Ctrl-C stops it)[/]")
    console.print(f"[dim]{_about_models(settings)}[/]")
    if settings.server.host in LOOPBACK_HOSTS:
        key_file = escape(str(dev_key_file(settings.data_dir)))
        console.print(f"[dim]An API key of this machine is in {key_file}[/]", soft_wrap=True)
    if open_page:
        webbrowser.open(address)


async def _wait_until_ready(listening: socket.socket) -> None:
    deadline = monotonic() + READY_WITHIN_S
    host, port = listening.getsockname()[:2]
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


def _about_models(settings: Settings) -> str:
    off = [
        f"{name} is off: {provider.api_key_env or provider.api_key_file} is not set"
        for name, provider in settings.providers.items()
        if provider.wants_key and not provider.api_key()
    ]
    return "; ".join([f"Model: {Models(settings).default.id}", *off]) + "."


def _try_to_write(probe: Path) -> None:
    """Detects a full disk before the first message does."""
    try:
        probe.write_bytes(b"x" * 65_536)
    finally:
        probe.unlink(missing_ok=True)


@contextmanager
def _data_folder(folder: Path) -> Iterator[int]:
    """Creates the data folder, and locks it against a second `up`: the lock's file descriptor.

    Raises StartError.
    """
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
        yield lock.fileno()
