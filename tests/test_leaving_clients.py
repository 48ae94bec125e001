"""Clients that leave in the middle of a request, and scrapers of a worker's metrics."""

import socket
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx
import pytest

from server.bench.processes import free_port
from tests.system import System
from tests.waiting import until

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("path", ["/graphql", "/api/messages"])
def test_a_client_that_leaves_while_it_sends_its_body_is_no_fault(
    path: str, new_system: Callable[..., System]
) -> None:
    system = new_system()
    system.start(workers=0)
    key, address = system.new_key(), urlsplit(system.web.url)
    head = f"POST {path} HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {key}\r\n"
    head += "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"

    for _ in range(5):
        with socket.create_connection((address.hostname, address.port)) as connection:
            connection.sendall(head.encode())
    until(lambda: httpx.get(f"{system.web.url}/healthz", trust_env=False).status_code == 200)

    assert system.web.stop() == 0
    assert "error" not in system.processes[-1].output()


@pytest.mark.parametrize("token", ["", "s3cret"])
def test_a_scraper_needs_the_token_whatever_the_host(
    token: str, new_system: Callable[..., System]
) -> None:
    port = free_port()
    system = new_system(
        server={"allowed_hosts": ["chat.example"], "metrics_token": token},
        worker={"http_port": port, "drain_s": 1},
    )
    system.start(webs=1, workers=1)
    worker = f"http://127.0.0.1:{port}"
    until(lambda: answers(worker), "the worker")
    for url in (worker, system.web.url):
        with httpx.Client(base_url=url, trust_env=False, headers={"Host": "10.1.2.3:9"}) as http:
            refused = http.get("/metrics")
            wrong = http.get("/metrics", headers={"Authorization": "Bearer wrong"})
            right = http.get("/metrics", headers={"Authorization": f"Bearer {token or 'none'}"})
        for each in (refused, wrong):
            assert (each.status_code, each.json()["code"]) == (404, "not_found")
        assert right.status_code == (200 if token else 404)
    assert "internal_error" not in system.worker.output()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
