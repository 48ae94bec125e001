"""`tidemark up`: everything it starts, replaces and ends."""

import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from server.identity.secrets import is_key
from tests.command_line.commands import Running, check_one_line, process, start
from tests.waiting import until

STOP_MAX_S = 20


@pytest.fixture
def up() -> Iterator[Callable[[], Running]]:
    """Start `up` on a free port in the current folder."""
    running: list[Running] = []

    def run() -> Running:
        running.append(start("up", "--port", "0"))
        return running[-1]

    yield run
    for each in running:
        each.end()


def ask(url: str, key: str, text: str = "/demo tokens=3 rate=0") -> str:
    """Send a message and read the whole stream."""
    headers = {"Authorization": f"Bearer {key}", "Accept": "text/event-stream"}
    return httpx.post(
        f"{url}/api/messages", json={"text": text}, headers=headers, timeout=30, trust_env=False
    ).text


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def completes(url: str, key: str) -> bool:
    try:
        return "event: completed" in ask(url, key)
    except httpx.TransportError:
        return False


def test_up_starts_everything_and_replaces_dead_processes(
    up: Callable[[], Running], tmp_path: Path
) -> None:
    running = up()
    url = running.url()

    assert ready(url)
    file = tmp_path / ".tidemark" / "dev-key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    key = file.read_text().strip()
    assert is_key(key)
    assert completes(url, key)
    until(lambda: "OPENAI_API_KEY" in running.output, "the hint about providers")
    until(lambda: str(file) in running.output, "the path of the key")
    assert key not in running.output
    assert stat.S_IMODE((tmp_path / ".tidemark").stat().st_mode) == 0o700
    check_one_line(process("up", "--port", "0"), 1, "Another", str(tmp_path / ".tidemark"))
    assert ready(url)
    assert set(running.children()) == {"web", "worker", "valkey"}
    for name in ("web", "worker", "valkey"):
        check_replacement(running, name, url, key)


def check_replacement(running: Running, name: str, url: str, key: str) -> None:
    """Check that a killed child is replaced and everything works again."""
    child = running.children()[name]

    child.kill()

    until(lambda: running.children().get(name, child) != child, f"another {name}")
    until(lambda: ready(url) and completes(url, key), f"an answer after the end of {name}")
    assert running.popen.poll() is None


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_up_and_all_its_processes(
    number: signal.Signals, up: Callable[[], Running], tmp_path: Path
) -> None:
    running = up()
    url, children = running.url(), running.children()
    key = (tmp_path / ".tidemark" / "dev-key").read_text().strip()
    body = {"text": "/demo tokens=10 rate=0 stall_after=3"}
    assert (
        httpx.post(
            f"{url}/api/messages",
            json=body,
            headers={"Authorization": f"Bearer {key}"},
            trust_env=False,
        ).status_code
        == 202
    )

    running.popen.send_signal(number)

    assert running.popen.wait(STOP_MAX_S) == 0
    until(running.has_no_children_left, f"the end of {children}")
    assert not ready(url)
    assert "Traceback" not in running.output


@pytest.mark.slow
def test_after_up_is_killed_its_processes_end_and_a_new_one_continues(
    up: Callable[[], Running], tmp_path: Path
) -> None:
    first = up()
    url = first.url()
    key = (tmp_path / ".tidemark" / "dev-key").read_text().strip()
    assert completes(url, key)
    assert len(first.children()) == 3

    first.popen.kill()
    first.popen.wait()

    until(first.has_no_children_left, "the end of the child processes", STOP_MAX_S)
    url = up().url()
    assert (tmp_path / ".tidemark" / "dev-key").read_text().strip() == key
    headers = {"Authorization": f"Bearer {key}"}
    assert (
        len(httpx.get(f"{url}/api/conversations", headers=headers, trust_env=False).json()["data"])
        == 1
    )
    assert completes(url, key)
