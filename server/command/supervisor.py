"""A supervisor that imports once and forks: a process that ends runs again within milliseconds.

It has no threads, event loops or connections, so that a fork of it is a clean start. What needs
those (migrating, releasing the answers of a dead worker) runs in a forked process of its own.
"""

import ctypes
import gc
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final

from server.command.process import end_with, exit_code
from server.logs import log, name_process

SIGNALS: Final = (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM)
HEALTHY_AFTER_S = 5.0
START_WITHIN_S = 90.0
BACK_OFF_S, BACK_OFF_MAX_S = 0.1, 10.0
PR_SET_NAME = 15


@dataclass(frozen=True, slots=True)
class Run:
    """One life of a process: what it runs, and what a process of its own runs once it has died."""

    main: Callable[[], None]
    after_death: Callable[[], None] | None = None


class Child:
    """A process that is kept running. What others need (`base`) starts first and ends last.

    `log` is the file that says why it could not start, if it has one.
    """

    def __init__(
        self, name: str, new_run: Callable[[], Run], *, base: bool = False, log: Path | None = None
    ) -> None:
        self.name, self.base, self.log = name, base, log
        self.new_run = new_run
        self.pid, self.starts = 0, 0
        self.started_at, self.start_at, self.back_off_s = 0.0, 0.0, 0.0


class Supervisor:
    """Keeps children running until SIGINT or SIGTERM. A second signal kills them."""

    def __init__(
        self, children: list[Child], *, end_within_s: float, private_fds: tuple[int, ...] = ()
    ) -> None:
        self._children, self._end_within_s = children, end_within_s
        self._private_fds = private_fds  # which children must not keep open
        self._ended: dict[int, Callable[[int], None]] = {}
        self._recoveries: set[int] = set()  # running `after_death`s, which are not interrupted
        self._interrupts = 0
        self._prepared_ok, self._ready, self._failed = False, False, False
        self._alive, self._alive_writer = os.pipe()  # children end when it closes
        self._wakeup, self._wakeup_writer = os.pipe()

    def run(
        self, prepare: Callable[[], None] | None = None, announce: Callable[[], None] | None = None
    ) -> int:
        """Runs `prepare`, then the children and `announce`. Returns the exit code.

        Everything ends with exit code 1 if one of these, or the first run of a child, fails.
        """
        gc.collect()
        gc.freeze()
        with self._signals():
            try:
                if prepare is not None:
                    self._fork("prepare", prepare, lambda code: self._prepared(code, announce))
                else:
                    self._prepared(0, announce)
                while not (self._interrupts or self._failed):
                    self._start_due()
                    self._wait(self._next_start())
                    self._reap()
            finally:
                self._end(spared={child.pid for child in self._children if child.base})
                self._end(spared=set())
        return 1 if self._failed else 0

    def _prepared(self, code: int, announce: Callable[[], None] | None) -> None:
        self._prepared_ok = self._succeeded(code)
        if announce is not None and self._prepared_ok:
            self._fork("announce", announce, self._announced)

    def _announced(self, code: int) -> None:
        self._ready = self._succeeded(code)

    def _succeeded(self, code: int) -> bool:
        """Whether a step of the start ended well. One that was interrupted has not failed."""
        self._failed = self._failed or (code != 0 and not self._interrupts)
        return code == 0 and not self._interrupts

    def _due(self) -> list[Child]:
        return [
            child for child in self._children if not child.pid and (child.base or self._prepared_ok)
        ]

    def _start_due(self) -> None:
        for child in self._due():
            if child.start_at <= monotonic():
                self._start(child)

    def _start(self, child: Child) -> None:
        run = child.new_run()
        child.starts += 1
        child.started_at = monotonic()
        child.pid = self._fork(
            child.name, run.main, lambda code: self._child_ended(child, run, code)
        )

    def _next_start(self) -> float | None:
        """Seconds until a child has to be started; None if all of them run."""
        due = [child.start_at for child in self._due()]
        return max(0.0, min(due) - monotonic()) if due else None

    def _child_ended(self, child: Child, run: Run, code: int) -> None:
        pid, child.pid = child.pid, 0
        lived_s = monotonic() - child.started_at
        if self._interrupts or self._failed:
            return
        if code > 0 and child.starts == 1 and not self._ready and lived_s < START_WITHIN_S:
            hint = f"; see {child.log}" if child.log is not None else ""
            sys.stderr.write(f"tidemark: The {child.name} process could not start{hint}.\n")
            self._failed = True
            return
        log.warning("child_ended", child=child.name, pid=pid, code=code)
        if run.after_death is not None:
            self._recover(child, run.after_death)
        healthy = lived_s > HEALTHY_AFTER_S
        child.back_off_s = (
            0.0 if healthy else min(BACK_OFF_MAX_S, child.back_off_s * 2 or BACK_OFF_S)
        )
        child.start_at = monotonic() + child.back_off_s

    def _recover(self, child: Child, after_death: Callable[[], None]) -> None:
        pid = self._fork(
            f"{child.name}-end", after_death, lambda _code: self._recoveries.remove(pid)
        )
        self._recoveries.add(pid)

    def _fork(self, name: str, main: Callable[[], None], ended: Callable[[int], None]) -> int:
        sys.stdout.flush()
        sys.stderr.flush()
        # A signal between the fork and the reset of its handler would be lost, or wake the parent.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        pid = os.fork()
        if not pid:
            self._become(name, main)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        self._ended[pid] = ended
        return pid

    def _become(self, name: str, main: Callable[[], None]) -> None:
        """Runs `main` in a forked process, which ends with it."""
        code = 1
        try:
            os.setsid()  # Ctrl-C reaches only the supervisor
            signal.set_wakeup_fd(-1)
            for number in SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            for fd in (self._wakeup, self._wakeup_writer, self._alive_writer, *self._private_fds):
                os.close(fd)
            _set_name(f"tidemark-{name}")
            name_process(name)
            end_with(self._alive)
            code = exit_code(main)
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        except BaseException:  # nothing may return into the supervisor's stack
            traceback.print_exc()
        finally:
            with suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Signals wake `_wait`; their numbers are read from a pipe."""
        for fd in (self._wakeup, self._wakeup_writer):
            os.set_blocking(fd, False)
        before = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
        signal.set_wakeup_fd(self._wakeup_writer)
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _wait(self, seconds: float | None) -> None:
        """Returns at a signal, or after this time."""
        if not select.select([self._wakeup], [], [], seconds)[0]:
            return
        numbers = os.read(self._wakeup, 1024)
        interrupts = sum(number != signal.SIGCHLD for number in numbers)
        if interrupts and not self._interrupts:
            sys.stderr.write("Stopping … (Ctrl-C again to stop at once)\n")
        self._interrupts += interrupts

    def _reap(self) -> None:
        """Takes note of the processes that have ended."""
        while self._ended:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            if (ended := self._ended.pop(pid, None)) is not None:
                ended(os.waitstatus_to_exitcode(status))

    def _end(self, spared: set[int]) -> None:
        """Stops the children and waits for every process but `spared`; kills what takes too long."""
        for pid in self._ended.keys() - spared - self._recoveries:
            os.kill(pid, signal.SIGTERM)
        deadline, killed = monotonic() + self._end_within_s, False
        while running := self._ended.keys() - spared:
            if not killed and (self._interrupts > 1 or monotonic() > deadline):
                killed = True
                for pid in running:
                    os.kill(pid, signal.SIGKILL)
            self._wait(None if killed else max(0.0, deadline - monotonic()))
            self._reap()


def _set_name(name: str) -> None:
    """The name that `ps` and `top` show."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode()[:15])
