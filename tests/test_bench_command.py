"""`tidemark bench` without its extra, and that the server does not depend on the benchmarks."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
WITHOUT_PSUTIL = """
import sys

sys.modules["psutil"] = None  # importing it raises ModuleNotFoundError
sys.argv[0] = "tidemark"
from server.__main__ import main

main()
"""

RUNTIME = """
import sys

sys.modules["psutil"] = None
import server.app, server.worker, server.command.up, server.command.web
import server.command.worker, server.command.doctor, server.command.people

assert not [name for name in sys.modules if name.startswith("server.bench")]
"""


def without_psutil(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_PSUTIL, *arguments]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_a_benchmark_without_psutil_names_the_extra_to_install(tmp_path: Path) -> None:
    completed = without_psutil(tmp_path, "bench", "stop")

    assert completed.returncode == 1
    assert completed.stderr.count("\n") == 1
    assert "pip install 'tidemark[bench]'" in completed.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_benchmarks_can_be_listed_without_psutil(tmp_path: Path) -> None:
    completed = without_psutil(tmp_path, "bench", "list")

    assert (completed.returncode, completed.stderr) == (0, "")
    assert "first-token" in completed.stdout


def test_the_server_does_not_import_psutil_or_the_benchmarks(tmp_path: Path) -> None:
    completed = subprocess.run(
        [sys.executable, "-c", RUNTIME],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert completed.stderr == ""
    assert completed.returncode == 0
