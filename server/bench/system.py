"""The system under test: scripted upstream, Redis, worker and web, each a process of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis

from server.bench.answer import MODEL as SCRIPT_MODEL
from server.bench.errors import MeasureError
from server.bench.processes import (
    Folder,
    Running,
    free_port,
    raise_descriptor_limit,
    temporary_folder,
)
from server.bench.service import Server, connected, ready
from server.settings import embedded_socket

MODEL: Final = f"bench/{SCRIPT_MODEL}"
SERVER_ROLES: Final = ("web", "worker", "redis")
_ACCOUNTS: Final = 4


class System:
    """The running processes, and the CPU time of each."""

    def __init__(self, folder: Folder, port: int) -> None:
        self.folder, self.port = folder, port
        self.processes: dict[str, Running] = {}
        self.upstream_port = 0
        self.server: Server

    @property
    def redis_socket(self) -> Path:
        """The socket of the embedded Valkey."""
        return embedded_socket(self.folder.data)

    def cpu_s(self) -> dict[str, float]:
        """The CPU time used so far, by process."""
        return {name: process.cpu_s() for name, process in self.processes.items()}

    async def start(self, role: str) -> None:
        """Starts `tidemark <role>`."""
        self.processes[role] = await self.folder.start(
            role, "server", role, "--data-dir", str(self.folder.data)
        )

    async def stop(self, role: str) -> None:
        """Ends `tidemark <role>`."""
        await self.processes.pop(role).stop()

    async def ready(self) -> None:
        """Waits until the web process is ready."""
        await ready(
            self.server, *(self.processes[role] for role in SERVER_ROLES if role in self.processes)
        )

    async def restart_web(self) -> None:
        """Replaces the web process by a new one."""
        await self.stop("web")
        await self.start("web")
        await self.ready()

    async def upstream_answers(self) -> list[dict[str, Any]]:
        """The state of the answers of the scripted upstream, oldest first."""
        async with connected("127.0.0.1", self.upstream_port, [""]) as upstream:
            answers: list[dict[str, Any]] = (await upstream.call("GET", "/answers"))["answers"]
            return answers

    async def redis_commands(self) -> dict[str, int]:
        """The number of calls of each Redis command, those by scripts too, but not its own."""
        async with Redis(unix_socket_path=str(self.redis_socket)) as redis:
            stats: dict[str, Any] = await redis.info("commandstats")
        ours = {"info", "hello", "client|setinfo", "client|setname", "select"}
        calls = {name.removeprefix("cmdstat_"): int(stat["calls"]) for name, stat in stats.items()}
        return {name: count for name, count in calls.items() if name not in ours}

    def check(self) -> None:
        """Raises MeasureError if any process has ended."""
        for process in self.processes.values():
            process.check()


@asynccontextmanager
async def system(
    database: str | None = None, *, accounts: int = _ACCOUNTS
) -> AsyncIterator[System]:
    """Starts all processes and creates accounts. The default database is SQLite in its folder."""
    raise_descriptor_limit()
    async with temporary_folder() as folder:
        tested = System(folder, free_port())
        upstream = await folder.start(
            "upstream", "server.bench.upstream", "--port", "0", "--with-parent", piped=True
        )
        tested.processes["upstream"] = upstream
        tested.upstream_port = int((await upstream.read_line())["port"])
        folder.set(_settings(tested.port, tested.upstream_port))
        if database is not None:
            folder.set({"DATABASE__URL": database})
        await tested.start("redis")
        await folder.command("migrate")
        async with connected(
            "127.0.0.1", tested.port, await _make_keys(folder, accounts)
        ) as tested.server:
            await tested.start("worker")
            await tested.start("web")
            await tested.ready()
            yield tested
            tested.check()


def _settings(port: int, upstream_port: int) -> dict[str, str]:
    return {
        "SERVER__PORT": str(port),
        "WORKER__CONCURRENCY": "2000",
        "WORKER__DRAIN_S": "1",
        "GENERATION__TITLES": "false",
        "GENERATION__DEFAULT_MODEL": MODEL,
        "GENERATION__ACTIVE_MAX_PER_ACCOUNT": "10000",
        "PROVIDERS__BENCH__KIND": "openai",
        "PROVIDERS__BENCH__BASE_URL": f"http://127.0.0.1:{upstream_port}/v1",
        "PROVIDERS__BENCH__API_KEY_ENV": "TIDEMARK_BENCH_KEY",
        "PROVIDERS__BENCH__MODELS": f'["{SCRIPT_MODEL}"]',
        "BENCH_KEY": "x",
    }


async def _make_keys(folder: Folder, accounts: int) -> list[str]:
    keys = []
    for number in range(accounts):
        email = f"bench-{number}@example.com"
        await folder.command("user", "create", email)
        printed = await folder.command("key", "create", f"bench-{number}", "--account", email)
        secrets = [word for word in printed.split() if word.startswith("tmk_")]
        if not secrets:
            raise MeasureError("tidemark key create printed no key.")
        keys.append(secrets[-1])
    return keys
