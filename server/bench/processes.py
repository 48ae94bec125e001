"""Child processes in a temporary folder, which are always ended."""

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
_LINE_MAX_BYTES: Final = 512 * 1024 * 1024  # results list the delay of every token


class Running:
    """A child process: its pipes, its log, its CPU time and memory."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name, self.process, self._log = name, process, log

    @property
    def pid(self) -> int:
        return self.process.pid

    def cpu_s(self) -> float:
        """The CPU time used so far, with that of its descendants."""
        return usage.cpu_s(self.pid)

    def memory_bytes(self) -> int:
        """Its own memory, with that of its descendants."""
        return usage.memory_bytes(self.pid)

    def check(self) -> None:
        """Raises MeasureError, with the end of its log, if it has ended."""
        if self.process.returncode is not None:
            raise MeasureError(
                f"{self.name} ended with code {self.process.returncode}.{self.log_tail()}"
            )

    def log_tail(self) -> str:
        """The last lines of its log, each after a line break."""
        lines = (
            self._log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
            if self._log.exists()
            else []
        )
        return "".join(f"\n    {self.name}: {line}" for line in lines)

    async def read_line(self) -> Any:
        """The next JSON line it prints. Raises MeasureError if it ends instead."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            await self.process.wait()
            raise MeasureError(
                f"{self.name} ended with code {self.process.returncode}.{self.log_tail()}"
            )
        return orjson.loads(line)

    async def send(self, command: dict[str, Any]) -> None:
        """Writes one JSON line to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(orjson.dumps(command) + b"\n")
        await self.process.stdin.drain()

    async def stop(self) -> None:
        """Ends it and its descendants: SIGTERM, and SIGKILL after some seconds."""
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
    """A temporary folder, the settings of the processes in it, and these processes."""

    def __init__(self, path: Path, stack: AsyncExitStack) -> None:
        self.path = path
        self.data = path / "data"
        self._stack = stack
        self._settings: dict[str, str] = {}
        (path / "config.toml").touch()

    def set(self, settings: Mapping[str, str]) -> None:
        """Sets settings, as `SECTION__KEY`, for processes that are started from now on."""
        self._settings |= {f"TIDEMARK_{key}": value for key, value in settings.items()}

    async def start(self, name: str, *arguments: str, piped: bool = False) -> Running:
        """Starts `python -m …`, to be ended with the folder. `piped`: it exchanges JSON lines."""
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
                start_new_session=True,  # Ctrl-C reaches only this process, which ends them
            )
        running = Running(name, process, log)
        self._stack.push_async_callback(running.stop)
        return running

    async def command(self, *arguments: str) -> str:
        """Runs one `tidemark` command and returns its output. Raises MeasureError."""
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
                f"tidemark {' '.join(arguments)} ended with code {process.returncode}: "
                f"{text.strip()[-1000:]}"
            )
        return text

    def _environment(self) -> dict[str, str]:
        """The environment without settings and provider keys, which would change the results."""
        platform = {"PORT", "DATABASE_URL", "REDIS_URL", "PYTHONDONTWRITEBYTECODE"}
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith("TIDEMARK_")
            and not key.endswith("_API_KEY")
            and key not in platform
        }
        return (
            kept
            | {"TIDEMARK_CONFIG": str(self.path / "config.toml"), "PYTHONUNBUFFERED": "1"}
            | self._settings
        )


@asynccontextmanager
async def temporary_folder() -> AsyncIterator[Folder]:
    """A folder that is removed at the end, after its processes have ended in reverse order."""
    usage.adopt_orphans()
    earlier = usage.descendants(os.getpid())
    path = Path(tempfile.mkdtemp(prefix="tmb-"))
    try:
        async with AsyncExitStack() as stack:
            yield Folder(path, stack)
    finally:
        for orphan in usage.descendants(os.getpid()):  # left by a process that crashed
            if orphan not in earlier:
                with suppress(psutil.NoSuchProcess):
                    orphan.kill()
        shutil.rmtree(path, ignore_errors=True)


def free_port() -> int:
    """A free port on the loopback address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def raise_descriptor_limit() -> int:
    """Raises the soft limit of open files to the hard limit. Returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):  # macOS reports "unlimited" but allows less
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
