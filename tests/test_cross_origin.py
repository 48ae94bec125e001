"""Pages of allowed origins can read every response, refusals and faults included."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.exceptions import HTTPException

from server.api import conversations
from server.history.database import DatabaseAway
from tests.client import Client
from tests.in_process import InProcess

pytestmark = pytest.mark.quick

ORIGIN = "https://app.example.org"


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory, valkey: str) -> Iterator[InProcess]:
    settings = {"server": {"allowed_origins": [ORIGIN], "streams_max_per_account": 1}}
    with InProcess(tmp_path_factory.mktemp("origins"), valkey, settings) as installation:
        yield installation


def check_readable(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "origin" in answer.headers["vary"].lower()


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/api/models", None, 200),
        ("POST", "/graphql", {"query": "{ viewer { account { id } } }"}, 200),
        ("POST", "/graphql", [], 400),
        ("GET", "/api/generations/gen_x/events?after=x", None, 400),
        ("GET", "/api/conversations/conv_x", None, 404),
        ("GET", "/api/nothing", None, 404),
        ("PUT", "/api/messages", None, 405),
        ("PATCH", "/graphql", None, 405),
        ("POST", "/api/messages", {"text": "x" * 2_000_000}, 413),
        ("POST", "/api/messages", {"text": ""}, 422),
    ],
)
async def test_every_status_is_readable(
    caller: Client, method: str, path: str, body: Any, status: int
) -> None:
    answer = await caller.http.request(method, path, json=body, headers={"Origin": ORIGIN})

    check_readable(answer, status)


@pytest.mark.parametrize("path", ["/api/conversations", "/graphql"])
async def test_a_refusal_for_missing_credentials_is_readable(
    installation: InProcess, path: str
) -> None:
    async with Client(installation.url) as nobody:
        method = "POST" if path == "/graphql" else "GET"
        answer = await nobody.http.request(method, path, headers={"Origin": ORIGIN})

    check_readable(answer, 401)


async def test_conflicts_and_limits_are_readable(caller: Client) -> None:
    sent = await caller.send("/demo tokens=5 rate=0 stall_after=2")
    path = f"/api/messages/{sent['message_id']}/regenerate"

    conflict = await caller.http.post(path, json={}, headers={"Origin": ORIGIN})
    async with caller.http.stream("GET", sent["events_url"], headers={"Origin": ORIGIN}) as stream:
        limited = await caller.http.get("/api/events", headers={"Origin": ORIGIN})
        assert stream.headers["access-control-allow-origin"] == ORIGIN
    await caller.cancel(sent["generation_id"])

    check_readable(conflict, 409)
    check_readable(limited, 429)
    exposed = limited.headers["access-control-expose-headers"].lower().split(", ")
    assert {"retry-after", "tidemark-request-id"} <= set(exposed) & set(limited.headers)


@pytest.mark.parametrize(
    ("error", "status"),
    [(RuntimeError("a bug"), 500), (DatabaseAway("gone"), 503), (HTTPException(401), 500)],
)
async def test_faults_are_readable(
    caller: Client, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    async def fail(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr(conversations.conversations, "get", fail)

    answer = await caller.http.get("/api/conversations/conv_x", headers={"Origin": ORIGIN})

    check_readable(answer, status)
    assert answer.json()["status"] == status


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE"])
async def test_a_preflight_allows_what_clients_send(installation: InProcess, method: str) -> None:
    wanted = ["authorization", "content-type", "idempotency-key", "last-event-id"]
    headers = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": ",".join(wanted),
    }

    async with Client(installation.url) as nobody:
        answer = await nobody.http.options("/api/conversations/conv_x", headers=headers)

    check_readable(answer, 200)
    assert method in answer.headers["access-control-allow-methods"]
    assert set(wanted) <= set(answer.headers["access-control-allow-headers"].lower().split(","))


async def test_every_header_of_an_answer_is_exposed(caller: Client) -> None:
    async def send(**headers: str) -> httpx.Response:
        body = {"text": "/demo tokens=1 rate=0"}
        return await caller.http.post(
            "/api/messages",
            json=body,
            headers={"Origin": ORIGIN, "Idempotency-Key": "once", **headers},
        )

    answers = [await send(), await send(), await send(Accept="text/event-stream")]

    for answer in answers:
        exposed = answer.headers["access-control-expose-headers"].lower().split(", ")
        own = {
            name
            for name in answer.headers
            if name in ("location", "retry-after") or name.startswith(("tidemark-", "idempotent"))
        }
        assert own <= set(exposed)
    assert answers[1].headers["idempotent-replayed"] == "true"


async def test_other_origins_read_nothing(caller: Client) -> None:
    answer = await caller.http.get("/api/models", headers={"Origin": "https://evil.example.org"})

    assert "access-control-allow-origin" not in answer.headers
