"""Bounds of a web process: bodies in time, connections and streams in number, loopback in truth."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from server.command.process import RESERVED_DESCRIPTORS, connections_that_fit
from server.identity.loopback import from_this_machine
from tests.client import Client
from tests.system import System, until

Make = Callable[..., System]
HEAD = (
    b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    b"Content-Length: 100\r\n\r\n{"
)


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


@pytest.mark.slow
@pytest.mark.parametrize("path", [b"/api/session", b"/api/messages", b"/graphql"])
async def test_a_body_that_does_not_arrive_is_refused(
    tidemark: System, key: str, path: bytes
) -> None:
    reader, writer = await connect(tidemark.web.url)
    authorization = b"Authorization: Bearer %s\r\n\r\n{" % key.encode()
    writer.write((HEAD % path).replace(b"\r\n\r\n{", b"\r\n" + authorization))

    async with asyncio.timeout(60):
        answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"code":"body_timeout"' in answer
    writer.close()


async def test_a_client_that_leaves_in_the_middle_of_a_body_is_no_fault(new_system: Make) -> None:
    system = new_system().start()

    for path in (b"/api/session", b"/api/messages", b"/graphql"):
        _reader, writer = await connect(system.web.url)
        writer.write(HEAD % path)
        await writer.drain()
        writer.close()
    async with Client(system.web.url, system.new_key()) as client:
        await client.get("/api/session")

    assert "internal_error" not in system.web.output()


async def test_connections_beyond_the_limit_are_refused(new_system: Make) -> None:
    system = new_system(server={"connections_max": 5}).start()

    held = [await connect(system.web.url) for _ in range(5)]
    reader, writer = await connect(system.web.url)
    refused = await reader.read()
    for _reader, each in held:
        each.close()
    writer.close()

    assert refused.startswith(b"HTTP/1.1 503")
    assert b'"code":"too_many_connections"' in refused
    async with Client(system.web.url, system.new_key()) as client:
        await client.get("/api/session")


async def test_streams_beyond_the_limit_of_an_account_are_refused(new_system: Make) -> None:
    system = new_system(server={"streams_max_per_account": 2}).start()
    async with Client(system.web.url, system.new_key()) as client:
        sent = await client.send("/demo tokens=5 rate=0 stall_after=2")
        url = f"/api/generations/{sent['generation_id']}/events"
        async with client.http.stream("GET", url), client.http.stream("GET", "/api/events"):
            refused = await client.http.get(url)
            sent_as_stream = await client.http.post(
                "/api/messages",
                json={"text": "/demo tokens=1 rate=0"},
                headers={"Accept": "text/event-stream"},
            )
            conversations = await client.get("/api/conversations")
            key = system.new_key(account="a@example.org")
            async with (
                Client(system.web.url, key) as other,
                other.http.stream("GET", "/api/events") as stream,
            ):
                assert stream.status_code == 200

        assert sent_as_stream.status_code == refused.status_code == 429
        assert len(conversations["data"]) == 1, "nothing was stored"
        assert refused.json()["code"] == "too_many_streams"
        assert refused.json()["limit"] == 2
        assert "retry-after" in refused.headers


def test_descriptors_are_kept_free_of_clients() -> None:
    assert connections_that_fit(10_000, 1_024) == 1_024 - RESERVED_DESCRIPTORS
    assert connections_that_fit(100, 1_024) == 100
    assert connections_that_fit(100, 50) == 1


def request_with(client: str | None = "127.0.0.1", **headers: str) -> Request:
    raw: list[Any] = [
        (name.replace("_", "-").lower().encode(), value.encode()) for name, value in headers.items()
    ]
    return Request(
        {"type": "http", "client": (client, 5000) if client else None, "headers": raw, "path": "/"}
    )


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:8000"])
def test_a_request_of_this_machine_is_known(host: str) -> None:
    assert from_this_machine(request_with(host=host))
    assert from_this_machine(request_with(client=None, host=host))


@pytest.mark.parametrize(
    "headers",
    [
        {"forwarded": "for=203.0.113.9"},
        {"x_forwarded_for": "203.0.113.9"},
        {"x_forwarded_host": "chat.example.org"},
        {"x_forwarded_proto": "https"},
        {"x_real_ip": "203.0.113.9"},
        {"via": "1.1 caddy"},
        {"cf_connecting_ip": "203.0.113.9"},
        {"true_client_ip": "203.0.113.9"},
    ],
)
def test_a_forwarded_request_is_not_of_this_machine(headers: dict[str, str]) -> None:
    assert not from_this_machine(request_with(host="localhost", **headers))


def test_a_request_for_a_public_name_or_from_elsewhere_is_not_of_this_machine() -> None:
    assert not from_this_machine(request_with(host="chat.example.org"))
    assert not from_this_machine(request_with(client="203.0.113.9", host="localhost"))


async def test_figures_and_guests_are_closed_to_what_a_tunnel_forwards(
    tidemark: System, client: Client
) -> None:
    forwarded = {"X-Real-IP": "203.0.113.9"}

    for path in ("/status", "/metrics"):
        assert (await client.http.get(path)).status_code == 200
        assert (await client.http.get(path, headers=forwarded)).status_code == 404
    async with Client(tidemark.web.url) as nobody:
        refused = await nobody.http.post("/api/session", json={}, headers=forwarded)
    assert refused.status_code == 403


@pytest.mark.parametrize("name", ["web", "worker"])
def test_a_process_that_waits_for_its_services_stops_at_once(new_system: Make, name: str) -> None:
    system = new_system()  # nothing runs, not even the schema is there
    system.folder.joinpath("data").mkdir()
    process = system.start_web(wait=False) if name == "web" else system.start_worker()
    until(lambda: _handles(process.pid, signal.SIGTERM), f"the signal handler of {name}")

    os.kill(process.pid, signal.SIGTERM)

    assert process.popen.wait(30) == 0, process.output()


def _handles(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for this signal."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


async def test_caches_store_nothing_of_an_account(client: Client) -> None:
    conversations = await client.http.get("/api/conversations")
    viewer = await client.http.post("/graphql", json={"query": "{ viewer { account { id } } }"})

    assert conversations.status_code == viewer.status_code == 200
    assert conversations.headers["cache-control"] == viewer.headers["cache-control"] == "no-store"


async def test_credentials_that_browsers_add_do_not_lift_the_rule_for_other_sites(
    tidemark: System,
) -> None:
    headers = {"sec-fetch-site": "cross-site", "authorization": "Basic YWRhOmFkYQ=="}

    async with Client(tidemark.web.url) as browser:
        refused = await browser.http.post("/api/session", json={}, headers=headers)

    assert (refused.status_code, refused.json()["code"]) == (403, "cross_site")
