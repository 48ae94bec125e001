"""Servers of other projects, installed into a throw-away environment and run beside a test."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

INSTALL_MAX_S = 1200
START_MAX_S = 180


def install(folder: Path, *packages: str, always_in_ci: bool = False) -> Path:
    """The `bin` folder of a new environment with these packages; skips the test without them."""
    in_ci = always_in_ci and os.environ.get("CI") == "true"
    give_up = pytest.fail if in_ci else pytest.skip
    uv = shutil.which("uv")
    if uv is None:
        give_up("uv is not installed")
    environment = folder / "environment"
    for command in (
        ["venv", "--quiet", "--python", sys.executable, str(environment)],
        ["pip", "install", "--quiet", "--python", str(environment / "bin" / "python"), *packages],
    ):
        try:
            done = subprocess.run(
                [uv, *command],
                capture_output=True,
                text=True,
                timeout=INSTALL_MAX_S,
                check=False,
                cwd=folder,  # the constraints of this project are not for others
            )
        except subprocess.TimeoutExpired:
            give_up(f"{', '.join(packages)} cannot be installed within {INSTALL_MAX_S} s")
        if done.returncode:
            give_up(f"{', '.join(packages)} cannot be installed: {done.stderr[-500:]}")
    return environment / "bin"


@contextmanager
def running(
    command: list[str], ready_url: str, log: Path, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A server that runs until the end of the context, once `ready_url` answers."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            cwd=log.parent,
        )
        try:
            _wait(process, ready_url, log)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_MAX_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            if httpx.get(url, timeout=5, trust_env=False).status_code < 500:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"the server did not start: {log.read_text()[-3000:]}")
