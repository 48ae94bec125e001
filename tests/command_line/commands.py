"""Running commands: to their end in a process of their own, or in the background."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.system import ROOT
from tests.waiting import until


class Result(NamedTuple):
    """The result of a command."""

    code: int
    out: str
    err: str


Command = Callable[..., Result]
SERVING = re.compile(r"serves (http://\S+)")


def process(*arguments: str, **environment: str) -> Result:
    """Run a command in a process of its own."""
    command = [sys.executable, "-m", "server", *arguments]
    completed = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    )
    return Result(completed.returncode, completed.stdout, completed.stderr)


def check_one_line(result: Result, code: int, *words: str) -> None:
    """Check that a command failed with this code and gave the reason in one line."""
    assert result.code == code, result
    assert result.err.startswith("tidemark: "), result.err
    assert result.err.count("\n") == 1, result.err
    assert result.err.endswith("\n"), result.err
    for word in words:
        assert word in result.err


class Running:
    """A running command and its child processes."""

    def __init__(self, popen: "subprocess.Popen[bytes]", log: Path) -> None:
        self.popen, self.log = popen, log
        self.family: list[psutil.Process] = []

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def url(self) -> str:
        """The address in its output, once it serves."""

        def found() -> str:
            assert self.popen.poll() is None, self.output
            match = SERVING.search(self.output)
            return match[1] if match else ""

        return str(until(found, "the address"))

    def children(self) -> dict[str, psutil.Process]:
        """Its current child processes by role."""
        found = psutil.Process(self.popen.pid).children(recursive=True)
        self.family += [each for each in found if each not in self.family]
        return {
            name: each
            for each in found
            for name in ("web", "worker", "valkey")
            if name in role_of(each)
        }

    def has_no_children_left(self) -> bool:
        return not any(
            each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in self.family
        )

    def end(self) -> None:
        """Kill it and its children."""
        if self.popen.poll() is None:
            with suppress(psutil.NoSuchProcess):
                self.children()
            self.popen.kill()
            self.popen.wait()
        for each in self.family:
            with suppress(psutil.NoSuchProcess):
                each.kill()


def role_of(child: psutil.Process) -> str:
    """The role of a child of `up`."""
    try:
        return child.name()
    except psutil.Error:
        return ""


def start(*arguments: str, **environment: str) -> Running:
    """Start a command in the current folder."""
    log = Path.cwd() / f"{'-'.join(arguments[:1])}-{time.monotonic_ns()}.log"
    with log.open("wb") as out:
        popen = subprocess.Popen(
            [sys.executable, "-m", "server", *arguments],
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
            start_new_session=True,
        )
    return Running(popen, log)
