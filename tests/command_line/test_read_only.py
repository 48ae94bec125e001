"""Containers: processes whose root is read-only, with a database and a Redis elsewhere."""

import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.bench.processes import free_port
from tests.postgres import Postgres
from tests.system import ROOT
from tests.waiting import until

pytestmark = pytest.mark.slow

MOUNT = 'mount -t tmpfs -o ro tidemark "$0" && cd "$0" && exec "$@"'


class ReadOnly:
    """Runs commands in a folder that cannot be written, not even by root."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self.url = f"http://127.0.0.1:{environment['TIDEMARK_SERVER__PORT']}"
        self._prefix = ["unshare", "-m", "sh", "-c", MOUNT, str(folder)] if is_root() else []
        kept = {k: v for k, v in os.environ.items() if not k.startswith("TIDEMARK_")}
        self._environment = kept | environment | {"PYTHONPATH": str(ROOT)}

    def start(self, *arguments: str, **options: Any) -> "subprocess.Popen[bytes]":
        command = [*self._prefix, sys.executable, "-m", "server", *arguments]
        return subprocess.Popen(command, cwd=self._folder, env=self._environment, **options)

    def run(self, *arguments: str) -> str:
        with self.start(*arguments, stdout=subprocess.PIPE) as process:
            output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        return output.decode()


def is_root() -> bool:
    return os.geteuid() == 0


@pytest.fixture
def read_only(postgres: Postgres, valkey: str, tmp_path: Path) -> ReadOnly:
    folder = tmp_path / "root"
    folder.mkdir(mode=0o555)
    mounting = ["unshare", "-m", "sh", "-c", MOUNT, str(folder), "true"]
    if is_root() and (
        not shutil.which("unshare") or subprocess.run(mounting, check=False).returncode
    ):
        pytest.skip("nothing can be mounted here")
    environment = {
        "DATABASE_URL": postgres.new_url(),
        "REDIS_URL": valkey,
        "TIDEMARK_REDIS__KEY_PREFIX": "read-only:",
        "TIDEMARK_GENERATION__DEMO": "true",
        "TIDEMARK_SERVER__PORT": str(free_port()),
    }
    return ReadOnly(folder, environment)


def test_processes_need_no_data_folder(read_only: ReadOnly) -> None:
    read_only.run("migrate")
    key = read_only.run("key", "create", "test").split()[-1]
    running = [read_only.start("web"), read_only.start("worker")]
    try:
        with closing(httpx.Client(base_url=read_only.url, trust_env=False)) as http:
            http.headers["Authorization"] = f"Bearer {key}"
            until(lambda: is_ready(http), "the web process")
            sent = http.post("/api/messages", json={"text": "/demo tokens=3"})
            events = http.get(sent.json()["events_url"], timeout=60)
    finally:
        for process in running:
            process.terminate()
        ended = [process.wait(30) for process in running]

    assert "event: completed" in events.text
    assert ended == [0, 0]


def is_ready(http: httpx.Client) -> bool:
    try:
        return http.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False
