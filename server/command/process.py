"""The setup of web and worker processes: their parent, garbage collection and limits."""

import gc
import os
import resource
import signal
import threading
from typing import Final

PARENT_FD, SOCKET_FD, WORKER_NAME = (
    "TIDEMARK_PARENT_FD",
    "TIDEMARK_SOCKET_FD",
    "TIDEMARK_WORKER_NAME",
)

YOUNG_OBJECTS, MIDDLE_ROUNDS, OLD_ROUNDS = 50_000, 20, 100
RESERVED_DESCRIPTORS: Final = 200
"""Descriptors that are kept free of clients: for Redis, the database, files and logs."""


def end_with_parent() -> None:
    """Sends this process a SIGTERM once the pipe from its parent closes, if it has one."""
    if (inherited := os.environ.pop(PARENT_FD, None)) is not None:
        threading.Thread(
            target=_stop_with_parent, args=(int(inherited),), daemon=True, name="parent"
        ).start()


def inherited_socket() -> int | None:
    """The file descriptor of a listening socket that the parent opened, if there is one."""
    fd = os.environ.pop(SOCKET_FD, None)
    return int(fd) if fd is not None else None


def given_name() -> str:
    """The name that `up` gave this worker, for releasing its answers; empty for none."""
    return os.environ.pop(WORKER_NAME, "")


def tune_gc() -> None:
    """Excludes imported objects from garbage collection, and collects rarely.

    Streams create many objects and hardly any cycles. With 1,000 readers of one answer, this makes
    a delivery a seventh cheaper.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, MIDDLE_ROUNDS, OLD_ROUNDS)


def raise_descriptor_limit() -> int:
    """Raises the soft limit of open files to the hard one, and returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (ValueError, OSError):  # macOS reports an unlimited hard limit and refuses it
            soft = min(hard, 10_240) if hard != resource.RLIM_INFINITY else 10_240
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft


def connections_that_fit(wanted: int, descriptors: int) -> int:
    """How many connections a web process may have, leaving descriptors for everything else."""
    if descriptors == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, descriptors - RESERVED_DESCRIPTORS))


def _stop_with_parent(fd: int) -> None:
    os.read(fd, 1)
    os.kill(os.getpid(), signal.SIGTERM)
