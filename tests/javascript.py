"""JavaScript programs of tests/node and their packages, installed once per lock file."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from hashlib import sha256
from pathlib import Path

import pytest

SOURCES = Path(__file__).parent / "node"
INSTALL_S, RUN_S = 240, 60


def packages() -> Path:
    """The folder with the programs and their packages.

    Without npm, the test is skipped; in CI it fails.
    """
    if shutil.which("npm") is None:
        if os.environ.get("CI"):
            pytest.fail("npm is not installed")
        pytest.skip("npm is not installed")
    wanted = b"".join(
        (SOURCES / name).read_bytes() for name in ("package.json", "package-lock.json")
    )
    folder = (
        Path(tempfile.gettempdir())
        / f"tidemark-node-{os.getuid()}-{sha256(wanted).hexdigest()[:16]}"
    )
    folder.mkdir(mode=0o700, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for source in SOURCES.iterdir():
            if source.is_file():
                shutil.copy(source, folder)
        if not (folder / "installed").exists():
            command = ["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"]
            completed = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S, check=False
            )
            assert completed.returncode == 0, completed.stderr
            (folder / "installed").touch()
    return folder


def run(program: str, *arguments: str, **environment: str) -> str:
    """Run a program of tests/node, which must succeed, and return its output."""
    command = ["node", program, *arguments]
    completed = subprocess.run(
        command,
        cwd=packages(),
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stdout
