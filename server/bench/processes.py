"""Started processes: in a temporary folder of their own, and ended by their ids whatever happens."""

import asyncio
import os
import resource
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import orjson
import psutil

from server.bench import usage
from server.bench.errors import MeasureError

_COMMAND_TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 15.0
_LOG_TAIL_LINES: Final = 15
_LINE_MAX_BYTES: Final = 512 * 1024 * 1024  # a report of the load lists the delay of every token


class Running:
    """One started process: its pipes, its log, its costs."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name, self.process, self._log = name, process, log

    @property
    def pid(self) -> int:
        return self.process.pid

    def cpu_s(self) -> float:
        """CPU seconds so far, descendants included."""
        return usage.cpu_s(self.pid)

    def memory_bytes(self) -> int:
        """Memory of its own, descendants included."""
        return usage.memory_bytes(self.pid)

    def check(self) -> None:
        """Raise MeasureError, with the end of its log, if it has ended."""
        if self.process.returncode is not None:
            raise MeasureError(
                f"{self.name} ended with code {self.process.returncode}.{self.log_tail()}"
            )

    def log_tail(self) -> str:
        """The last lines it wrote, on lines of their own."""
        lines = (
            self._log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
            if self._log.exists()
            else []
        )
        return "".join(f"\n    {self.name}: {line}" for line in lines)

    async def read_line(self) -> Any:
        """The next JSON line it prints. Raises MeasureError when it ends instead."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            await self.process.wait()
            raise MeasureError(
                f"{self.name} ended with code {self.process.returncode}.{self.log_tail()}"
            )
        return orjson.loads(line)

    async def send(self, command: dict[str, Any]) -> None:
        """Write one JSON line to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(orjson.dumps(command) + b"\n")
        await self.process.stdin.drain()

    async def stop(self) -> None:
        """End it and every descendant it had: SIGTERM and some seconds, then SIGKILL."""
        family = usage.descendants(self.pid)
        with suppress(ProcessLookupError):
            self.process.terminate()
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await self.process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
        for orphan in family:
            with suppress(psutil.NoSuchProcess):
                orphan.kill()


class Folder:
    """A temporary data folder, the environment of the processes in it, and those processes."""

    def __init__(self, path: Path, stack: AsyncExitStack) -> None:
        self.path = path
        self.data = path / "data"
        self._stack = stack
        self._settings: dict[str, str] = {}
        (path / "config.toml").touch()

    def set(self, settings: Mapping[str, str]) -> None:
        """Give settings to the processes started from now on, as `SECTION__KEY`."""
        self._settings |= {f"TIDEMARK_{key}": value for key, value in settings.items()}

    async def start(self, name: str, *arguments: str, piped: bool = False) -> Running:
        """Start `python -m …` with our environment; it is ended when the folder closes. `piped`: with JSON lines both ways."""
        log = self.path / f"{name}.log"
        with log.open("ab") as sink:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *arguments,
                env=self._environment(),
                stdin=asyncio.subprocess.PIPE if piped else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if piped else sink,
                stderr=sink,
                limit=_LINE_MAX_BYTES,
                start_new_session=True,  # Ctrl-C reaches us alone: we end them in order
            )
        running = Running(name, process, log)
        self._stack.push_async_callback(running.stop)
        return running

    async def command(self, *arguments: str) -> str:
        """Run one `tidemark` command to its end and return what it printed. Raises MeasureError."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "server",
            *arguments,
            "--data-dir",
            str(self.data),
            env=self._environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(_COMMAND_TIMEOUT_S):
                printed, _ = await process.communicate()
        except TimeoutError:
            raise MeasureError(
                f"tidemark {' '.join(arguments)} took longer than {_COMMAND_TIMEOUT_S:.0f} s."
            ) from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        text = printed.decode(errors="replace")
        if process.returncode:
            raise MeasureError(
                f"tidemark {' '.join(arguments)} ended with code {process.returncode}: {text.strip()[-1000:]}"
            )
        return text

    def _environment(self) -> dict[str, str]:
        """Ours without anybody's settings or provider keys: what is measured must not depend on who measures."""
        foreign = {"PORT", "DATABASE_URL", "REDIS_URL", "PYTHONDONTWRITEBYTECODE"}
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith("TIDEMARK_")
            and not key.endswith("_API_KEY")
            and key not in foreign
        }
        return (
            kept
            | {"TIDEMARK_CONFIG": str(self.path / "config.toml"), "PYTHONUNBUFFERED": "1"}
            | self._settings
        )


@asynccontextmanager
async def temporary_folder() -> AsyncIterator[Folder]:
    """A folder whose processes end, last started first, before it goes."""
    usage.adopt_orphans()
    earlier = usage.descendants(os.getpid())
    path = Path(tempfile.mkdtemp(prefix="tmb-"))
    try:
        async with AsyncExitStack() as stack:
            yield Folder(path, stack)
    finally:
        for orphan in usage.descendants(
            os.getpid()
        ):  # what a process that died itself has left behind
            if orphan not in earlier:
                with suppress(psutil.NoSuchProcess):
                    orphan.kill()
        shutil.rmtree(path, ignore_errors=True)


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def raise_descriptor_limit() -> int:
    """Let this process and those it starts open as many descriptors as they may; returns how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):  # macOS says "unlimited" and allows less
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
