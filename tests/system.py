"""An installation of real processes that can be killed, frozen and restarted."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import redis

from server.ids import Prefix, new_id
from server.serve.listening import listen
from tests.installation import Installation
from tests.waiting import until

ROOT = Path(__file__).parent.parent


class Process:
    """A process of an installation."""

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
        """Kill it without warning, like a power failure."""
        self.popen.kill()
        self.popen.wait()

    def stop(self, wait_s: float = 30) -> int:
        """Send SIGTERM and wait until it has ended."""
        self.popen.terminate()
        return self.popen.wait(wait_s)

    def freeze(self) -> None:
        self.popen.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.popen.send_signal(signal.SIGCONT)

    def output(self) -> str:
        return self.log.read_text(errors="replace")


class System(Installation):
    """The processes of one installation. Nothing runs until it is started."""

    def __init__(self, folder: Path, settings: dict[str, Any] | None = None) -> None:
        super().__init__(folder, settings)
        self.processes: list[Process] = []
        self._counter = 0

    def start(self, *, webs: int = 1, workers: int = 1) -> "System":
        """Start Valkey, create the schema, start the other processes and wait for readiness."""
        valkey = self._spawn("redis", ["redis"])
        self.migrate()
        self._wait_for_redis(valkey)
        started = [self.start_web(wait=False) for _ in range(webs)]
        for _ in range(workers):
            self.start_worker()
        for web in started:
            self.wait_ready(web)
        return self

    def run(self, *arguments: str) -> str:
        """Run a command to its end and return its output."""
        command = [sys.executable, "-m", "server", *arguments, "--config", str(self.config)]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=60
        ).stdout

    def start_redis(self, **environment: str) -> Process:
        started = self._spawn("redis", ["redis"], environment=environment)
        self._wait_for_redis(started)
        return started

    def _wait_for_redis(self, started: Process) -> None:
        def answers() -> bool:
            assert started.alive, started.output()
            return self.redis_answers()

        until(answers, "Valkey")

    def start_web(
        self, *, wait: bool = True, port: int = 0, module: str = "server", **environment: str
    ) -> Process:
        with listen("127.0.0.1", port) as listening:
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            web = self._spawn("web", ["web"], url, listening, environment, module)
        if wait:
            self.wait_ready(web)
        return web

    def start_web_on(self, port: int) -> Process:
        """Start a web process that listens itself, once it can serve."""
        environment = {"TIDEMARK_SERVER__PORT": str(port)}
        web = self._spawn("web", ["web"], f"http://127.0.0.1:{port}", environment=environment)
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

    def start_supervised(self, name: str, processes: int) -> Process:
        """Start `web` or `worker` processes under a supervisor, and wait until it has started all."""
        with listen("127.0.0.1", 0) as listening:
            port = listening.getsockname()[1]
        supervisor = self._spawn(
            f"{name}s",
            [name, "--processes", str(processes)],
            f"http://127.0.0.1:{port}",
            environment={"TIDEMARK_SERVER__PORT": str(port)},
        )
        until(lambda: len(children_of(supervisor, name)) == processes, f"{processes} {name}s")
        return supervisor

    def owner_of(self, generation_id: str) -> Process:
        """The worker process that owns this answer now."""
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

    def close(self) -> None:
        """Kill every process that was started, by pid."""
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


def children_of(supervisor: Process, name: str) -> list[psutil.Process]:
    """The running processes of this name under a supervisor."""
    running = []
    for child in psutil.Process(supervisor.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.name() == f"tidemark-{name}" and child.status() != psutil.STATUS_ZOMBIE:
                running.append(child)
    return running
