"""The configurations in docs/deploy, and restarts behind a load balancer."""

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from server.__main__ import cli
from server.bench.processes import free_port
from server.settings import load_settings
from tests.client import Client, check_law
from tests.proxies import running_caddy, running_nginx
from tests.system import Process, System

DEPLOY = Path(__file__).parent.parent / "docs" / "deploy"
READERS = 40
ANSWER = "/demo tokens=300 rate=30"
POST_EVERY_S = 0.1


@pytest.mark.slow
@pytest.mark.parametrize("running_proxy", [running_nginx, running_caddy])
async def test_a_rolling_restart_behind_a_proxy_loses_nothing(
    running_proxy: Any, new_system: Callable[..., System]
) -> None:
    system = new_system(
        server={"shutdown_delay_s": 1, "trusted_proxies": ["127.0.0.1"]},
        generation={"titles": False, "active_max_per_account": 1000},
    )
    await asyncio.to_thread(lambda: system.start(webs=0, workers=1))
    ports = (free_port(), free_port())
    webs = [await asyncio.to_thread(system.start_web_on, port) for port in ports]
    key = await asyncio.to_thread(system.new_key)
    restarted = asyncio.Event()
    with running_proxy(ports) as url:
        async with Client(url, key) as client, asyncio.TaskGroup() as tasks:
            sent = [await client.send(ANSWER) for _ in range(READERS)]
            readings = [
                tasks.create_task(client.read_through(each["generation_id"])) for each in sent
            ]
            posting = tasks.create_task(post_until(client, restarted))
            for web, port in zip(webs, ports, strict=True):
                await asyncio.to_thread(restart, system, web, port)
            restarted.set()
            posted = await posting
            events = [await reading for reading in readings]
            for each, seen in zip(sent, events, strict=True):
                check_law(seen, await client.snapshot(each["generation_id"]))

    assert {seen[-1].type for seen in events} == {"completed"}
    assert set(posted) == {202}
    assert len(posted) > 1 / POST_EVERY_S


def restart(system: System, web: Process, port: int) -> None:
    """As `systemctl restart` does with the units of docs/deploy."""
    assert web.stop() == 0
    system.start_web_on(port)


async def post_until(client: Client, done: asyncio.Event) -> list[int]:
    """The statuses of messages that are sent until then, each once."""
    statuses = []
    while not done.is_set():
        answer = await client.http.post("/api/messages", json={"text": "/demo tokens=1"})
        statuses.append(answer.status_code)
        await asyncio.sleep(POST_EVERY_S)
    return statuses


def test_the_compose_file_runs_commands_that_exist_with_valid_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    commands = set(typer.main.get_command(cli).commands)
    ours = [service for service in services.values() if service["image"] == "tidemark"]

    for service in ours:
        assert set(service["command"]) <= commands
        for name, value in service["environment"].items():
            text = str(value).replace("${POSTGRES_PASSWORD:?}", "p@ss")
            text = text.replace("${PUBLIC_URL:-http://localhost:8080}", "http://localhost:8080")
            monkeypatch.setenv(name, text.replace("${OPENAI_API_KEY:-}", ""))
        settings = load_settings(None, tmp_path)
        assert settings.server.trusted_proxies == ["*"]
    assert len(ours) == 5


@pytest.mark.parametrize("unit", sorted(DEPLOY.glob("*.service")), ids=lambda unit: unit.name)
def test_the_units_of_systemd_are_valid(unit: Path, tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd here")
    for each in DEPLOY.glob("*.service"):
        text = each.read_text().replace("/opt/tidemark/bin/tidemark", sys.executable)
        (tmp_path / each.name).write_text(text.replace("/usr/bin/curl", sys.executable))
    name = unit.name.replace("@.", "@8001.")
    (tmp_path / name).write_text((tmp_path / unit.name).read_text())

    checked = subprocess.run(
        [program, "verify", "--man=no", tmp_path / name],
        capture_output=True,
        text=True,
        check=False,
    )

    about_ours = [line for line in checked.stderr.splitlines() if "tidemark" in line]
    assert about_ours == []
