"""JavaScript: programs of tests/node, with the packages they need, installed once per version of them."""

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
    """A folder with the programs and their packages. Skips where there is no node, which in CI is a failure."""
    if shutil.which("npm") is None:
        if os.environ.get("CI"):
            pytest.fail("there is no npm")
        pytest.skip("there is no npm")
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
            installed = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S, check=False
            )
            assert installed.returncode == 0, installed.stderr
            (folder / "installed").touch()
    return folder


def run(program: str, *arguments: str, **environment: str) -> str:
    """What a program of tests/node printed; it has to succeed."""
    command = ["node", program, *arguments]
    ran = subprocess.run(
        command,
        cwd=packages(),
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
