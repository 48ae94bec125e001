"""Commands at their start: ports, data folders, the default model, the schema."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.command_line.commands import Command, check_one_line, process, start
from tests.waiting import until


@pytest.mark.parametrize("name", ["doctor", "web"])
def test_an_unknown_default_model_prevents_the_start(name: str, data: Path) -> None:
    check_one_line(
        process(name, TIDEMARK_GENERATION__DEFAULT_MODEL="nobody/nothing", PORT="0"),
        2,
        "generation.default_model",
        "nobody/nothing",
    )


@contextmanager
def busy_port() -> Iterator[int]:
    """A port on which another socket listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


@pytest.mark.parametrize("name", ["up", "web"])
def test_a_port_in_use_is_named_in_the_error(name: str) -> None:
    with busy_port() as port:
        result = process(name, PORT=str(port))

    check_one_line(result, 1, f"Port {port} on 127.0.0.1", "--port")


@pytest.mark.parametrize("name", ["up", "web", "worker", "redis", "migrate"])
def test_a_data_folder_that_is_a_file_is_named_in_the_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")

    result = process(name, "--data-dir", "file", PORT="0")

    check_one_line(result, 1, str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "not a folder"


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system without free space."""
    folder = tmp_path / "full"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if (
        sys.platform != "linux"
        or not shutil.which("mount")
        or subprocess.run(mount, check=False, capture_output=True).returncode
    ):
        pytest.skip("a small file system can only be mounted by root on Linux")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("name", ["up", "migrate"])
def test_a_full_disk_prevents_the_start(name: str, full_disk: Path) -> None:
    result = process(name, "--data-dir", str(full_disk), PORT="0")

    check_one_line(result, 1)


def test_the_redis_command_only_waits_when_redis_is_external() -> None:
    if kernel_wait(os.getpid()) is None:
        pytest.skip("only Linux shows what a process waits for")
    started = start("redis", REDIS_URL="redis://127.0.0.1:1")
    try:
        until(
            lambda: "sigtimedwait" in (kernel_wait(started.popen.pid) or ""),
            "the wait for a signal",
        )
        started.popen.terminate()
        assert started.popen.wait(10) == 0
    finally:
        started.end()


def kernel_wait(pid: int) -> str | None:
    """The kernel function in which a process waits, where the system shows it."""
    try:
        return Path(f"/proc/{pid}/wchan").read_text()
    except OSError:
        return None


def test_migrate_creates_the_schema_once(command: Command, data: Path) -> None:
    first = process("migrate", "--data-dir", "fresh")
    again = process("migrate", "--data-dir", "fresh")

    assert (first.code, again.code) == (0, 0)
    assert "already" in again.out
    assert command("key", "list", "--data-dir", "fresh").code == 0
