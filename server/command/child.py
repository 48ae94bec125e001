"""What a process does that `up` has started: it knows its socket and its name, and ends when `up` is gone."""

import os
import signal
import threading

PARENT_FD, SOCKET_FD, WORKER_NAME = (
    "TIDEMARK_PARENT_FD",
    "TIDEMARK_SOCKET_FD",
    "TIDEMARK_WORKER_NAME",
)


def end_with_parent() -> None:
    """Has this process ask itself to stop once the pipe it inherited closes, that is when its parent has died."""
    if (inherited := os.environ.pop(PARENT_FD, None)) is not None:
        threading.Thread(
            target=_wait_for_end, args=(int(inherited),), daemon=True, name="parent"
        ).start()


def inherited_socket() -> int | None:
    """The file descriptor of the listening socket, if one was handed down."""
    fd = os.environ.pop(SOCKET_FD, None)
    return int(fd) if fd is not None else None


def given_name() -> str:
    """The name a worker was given, so that its parent can free what it owned when it dies; empty for none."""
    return os.environ.pop(WORKER_NAME, "")


def _wait_for_end(fd: int) -> None:
    os.read(fd, 1)
    os.kill(os.getpid(), signal.SIGTERM)
