"""What web and worker processes do with themselves: their parent, their memory, their limits."""

import gc
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from typing import Final

from server.errors import Refused, SettingsError, StartError

SOCKET_FD, WORKER_NAME = "TIDEMARK_SOCKET_FD", "TIDEMARK_WORKER_NAME"

YOUNG_OBJECTS, MIDDLE_ROUNDS, OLD_ROUNDS = 50_000, 20, 100
RESERVED_DESCRIPTORS: Final = 200
"""Descriptors that are kept free of clients: for Redis, the database, files and logs."""


def exit_code(main: Callable[[], object]) -> int:
    """Runs `main`. 0 done, 1 failed, 2 wrong settings; errors are one line on standard error."""
    try:
        main()
    except SettingsError as error:
        return _report(str(error), 2)
    except (StartError, Refused) as error:
        return _report(str(error), 1)
    return 0


def end_with(fd: int) -> None:
    """Sends this process a SIGTERM once the pipe at `fd` closes, which its supervisor holds."""
    threading.Thread(target=_wait_for_end, args=(fd,), daemon=True, name="supervisor").start()


def inherited_socket() -> int | None:
    """The file descriptor of a listening socket that the parent opened, if there is one."""
    fd = os.environ.pop(SOCKET_FD, None)
    return int(fd) if fd is not None else None


def given_name() -> str:
    """The name from the environment under which a supervisor can release this worker's answers."""
    return os.environ.pop(WORKER_NAME, "")


def tune_gc() -> None:
    """Excludes imported objects from garbage collection, and collects rarely.

    Streams make many objects and hardly any cycles. With 1,000 readers of one answer, this takes a
    seventh off the cost of a delivery.
    """
    gc.collect()
    gc.freeze()
    gc.enable()
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


def _report(line: str, code: int) -> int:
    sys.stderr.write(f"tidemark: {line}\n")
    return code


def _wait_for_end(fd: int) -> None:
    os.read(fd, 1)
    os.kill(os.getpid(), signal.SIGTERM)
