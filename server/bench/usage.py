"""What a process uses, its descendants included: CPU seconds and memory, as the operating system counts them."""

import ctypes
import sys
import time
from contextlib import suppress
from typing import Any, Final

import psutil

_PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h


def cpu_s(pid: int) -> float:
    """CPU seconds a process and its descendants have used; to the nanosecond where the kernel has a clock per process."""
    return sum(_own_cpu_s(member) for member in _family(pid))


def memory_bytes(pid: int) -> int:
    """Memory only this process and its descendants hold (USS), or what is resident where that cannot be read."""
    total = 0
    for member in _family(pid):
        try:
            total += member.memory_full_info().uss
        except (psutil.AccessDenied, AttributeError):
            total += member.memory_info().rss
    return total


def descendants(pid: int) -> list[Any]:
    """The living descendants of a process, as psutil processes (which know a reused id)."""
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies (Linux), so that `descendants` still finds them."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _family(pid: int) -> list[Any]:
    try:
        return [psutil.Process(pid), *descendants(pid)]
    except psutil.NoSuchProcess:
        return []


def _own_cpu_s(process: Any) -> float:
    if sys.platform == "linux":
        with suppress(OSError):
            return time.clock_gettime(
                (~process.pid << 3) | 2
            )  # MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED) of the kernel
    try:
        times = process.cpu_times()
        return float(times.user + times.system)
    except psutil.NoSuchProcess:
        return 0.0
