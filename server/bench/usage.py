"""The CPU time and memory of a process and its descendants, from the operating system."""

import ctypes
import sys
import time
from contextlib import suppress
from typing import Any, Final

import psutil

_PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h


def cpu_s(pid: int) -> float:
    """The CPU time of a process and its descendants; on Linux with a resolution of nanoseconds."""
    return sum(_own_cpu_s(member) for member in _family(pid))


def memory_bytes(pid: int) -> int:
    """The unique memory (USS) of a process and its descendants, else the resident memory."""
    total = 0
    for member in _family(pid):
        try:
            total += member.memory_full_info().uss
        except (psutil.AccessDenied, AttributeError):
            total += member.memory_info().rss
    return total


def pss_bytes(pid: int) -> int:
    """Its memory, with pages shared by n processes counted 1/n (Linux), else the resident memory."""
    process = psutil.Process(pid)
    try:
        return int(process.memory_full_info().pss)
    except (psutil.AccessDenied, AttributeError):
        return int(process.memory_info().rss)


def descendants(pid: int) -> list[Any]:
    """The running descendants of a process, as psutil processes, which detect reused ids."""
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def adopt_orphans() -> None:
    """Makes this process the parent of orphaned descendants, so they can be found (Linux)."""
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
            # MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED) of the kernel
            return time.clock_gettime((~process.pid << 3) | 2)
    try:
        times = process.cpu_times()
        return float(times.user + times.system)
    except psutil.NoSuchProcess:
        return 0.0
