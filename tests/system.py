"""A whole installation for one test: real processes in a folder of their own, which can be killed, frozen and started again."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import redis

from server.command import people
from server.command.listening import listen
from server.history.database import open_database
from server.history.tables import Generation
from server.ids import Prefix, new_id
from server.settings import Settings, load_settings

ROOT = Path(__file__).parent.parent
WAIT_S = 60.0


def until(condition: Callable[[], Any], what: str = "", wait_s: float = WAIT_S) -> Any:
    """Waits for a condition and gives what it gave; fails when it does not come true."""
    deadline = time.monotonic() + wait_s
    while True:
        if result := condition():
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {wait_s:g} s in vain for {what or condition}")
        time.sleep(0.01)


class Process:
    """A process of the system."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], log: Path, url: str = "") -> None:
        self.name, self.popen, self.log, self.url = name, popen, log, url
        self.worker_name = ""

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    def kill(self) -> None:
        """As if the power went for this process."""
        self.popen.kill()
        self.popen.wait()

    def stop(self, wait_s: float = 30) -> int:
        """SIGTERM, and waits for the end."""
        self.popen.terminate()
        return self.popen.wait(wait_s)

    def freeze(self) -> None:
        self.popen.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.popen.send_signal(signal.SIGCONT)

    def output(self) -> str:
        return self.log.read_text(errors="replace")


class System:
    """The processes of one installation. Nothing runs until it is started."""

    def __init__(self, folder: Path, settings: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self.config = folder / "config.toml"
        self.configure(**(settings or {}))
        self.processes: list[Process] = []
        self._counter = 0

    def configure(self, **settings: Any) -> None:
        """Writes the settings, for what is started from now on."""
        merged: dict[str, Any] = {
            "data": {"dir": str(self.folder / "data")},
            "generation": {"titles": False, "active_max_per_account": 1000},
            "worker": {"drain_s": 1},
            "providers": {},
        }
        for section, values in settings.items():
            merged.setdefault(section, {}).update(values)
        self.config.write_text(_toml(merged))
        tomllib.loads(self.config.read_text())

    @property
    def settings(self) -> Settings:
        return load_settings(self.config)

    @property
    def database(self) -> str:
        """Which kind of database this is."""
        return "SQLite" if self.settings.database_url.startswith("sqlite") else "PostgreSQL"

    def start(self, *, webs: int = 1, workers: int = 1) -> "System":
        """Starts Valkey, brings the schema, starts the rest and waits until it serves."""
        self.start_redis()
        self.run("migrate")
        started = [self.start_web(wait=False) for _ in range(webs)]
        for _ in range(workers):
            self.start_worker()
        for web in started:
            self.wait_ready(web)
        return self

    def run(self, *arguments: str) -> str:
        """Runs a command to its end and gives what it printed."""
        command = [sys.executable, "-m", "server", *arguments, "--config", str(self.config)]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=60
        ).stdout

    def start_redis(self) -> Process:
        started = self._spawn("redis", ["redis"])
        until(self.redis_answers, "Valkey")
        return started

    def start_web(
        self, *, wait: bool = True, port: int = 0, module: str = "server", **environment: str
    ) -> Process:
        with listen("127.0.0.1", port) as listening:
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            web = self._spawn("web", ["web"], url, listening, environment, module)
        if wait:
            self.wait_ready(web)
        return web

    def start_worker(self, *, module: str = "server", **environment: str) -> Process:
        name = new_id(Prefix.WORKER)
        worker = self._spawn(
            "worker",
            ["worker"],
            environment={"TIDEMARK_WORKER_NAME": name} | environment,
            module=module,
        )
        worker.worker_name = name
        return worker

    def row(self, generation_id: str) -> Generation:
        """What SQL says of a generation now."""

        async def read() -> Generation:
            async with open_database(self.settings.database_url) as database:
                return await database.read(
                    lambda session: session.get_one(Generation, generation_id)
                )

        with ThreadPoolExecutor(1) as thread:  # an event loop of its own, as in `new_key`
            return thread.submit(lambda: asyncio.run(read())).result()

    def owner_of(self, generation_id: str) -> Process:
        """The worker process that writes an answer now."""
        owner = self.row(generation_id).owner
        return next(worker for worker in self.of("worker") if worker.worker_name == owner)

    def wait_ready(self, web: Process) -> None:
        def ready() -> bool:
            assert web.alive, web.output()
            try:
                with urllib.request.urlopen(f"{web.url}/readyz", timeout=2) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False

        until(ready, f"{web.url}/readyz")

    def of(self, name: str) -> list[Process]:
        return [process for process in self.processes if process.name == name and process.alive]

    @property
    def web(self) -> Process:
        return self.of("web")[0]

    @property
    def worker(self) -> Process:
        return self.of("worker")[0]

    @property
    def valkey(self) -> Process:
        return self.of("redis")[0]

    def redis(self) -> "redis.Redis[Any]":
        return redis.Redis.from_url(self.settings.redis_url, socket_timeout=5)

    def redis_answers(self) -> bool:
        try:
            with contextlib.closing(self.redis()) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def new_key(self, name: str = "test", account: str | None = None) -> str:
        """An API key, of an account of its own where one is named."""

        def make() -> str:
            if account is not None and account not in {
                row[1] for row in people.list_users(self.settings)
            }:
                people.create_user(self.settings, account, admin=False)
            return people.create_key(self.settings, name, account, None)

        with ThreadPoolExecutor(
            1
        ) as thread:  # it runs an event loop of its own, and a test may be in one
            return thread.submit(make).result()

    def close(self) -> None:
        """Ends everything that was started, by pid."""
        for process in self.processes:
            if process.alive:
                with contextlib.suppress(ProcessLookupError):
                    process.thaw()
                process.popen.kill()
        for process in self.processes:
            process.popen.wait()

    def _spawn(
        self,
        name: str,
        arguments: list[str],
        url: str = "",
        listening: socket.socket | None = None,
        environment: dict[str, str] | None = None,
        module: str = "server",
    ) -> Process:
        self._counter += 1
        log = self.folder / f"{self._counter}-{name}.log"
        env = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith("TIDEMARK_") and not k.endswith("_API_KEY")
        } | (environment or {})
        fds: tuple[int, ...] = ()
        if listening is not None:
            env["TIDEMARK_SOCKET_FD"], fds = str(listening.fileno()), (listening.fileno(),)
        command = [sys.executable, "-m", module, *arguments, "--config", str(self.config)]
        with log.open("wb") as out:
            popen = subprocess.Popen(
                command,
                stdout=out,
                stderr=out,
                env=env,
                pass_fds=fds,
                start_new_session=True,
                cwd=ROOT,
            )
        process = Process(name, popen, log, url)
        self.processes.append(process)
        return process


def _toml(sections: dict[str, Any]) -> str:
    lines = []
    for section, values in sections.items():
        plain = {k: v for k, v in values.items() if not isinstance(v, dict)}
        if plain:
            lines += [f"[{section}]", *(f"{k} = {_value(v)}" for k, v in plain.items())]
        for name, nested in values.items():
            if isinstance(nested, dict):
                lines += [f"[{section}.{name}]", *(f"{k} = {_value(v)}" for k, v in nested.items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return (
        str(value)
        if isinstance(value, int | float)
        else '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
    )
