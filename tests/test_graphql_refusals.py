"""Refusals of GraphQL have the same headers and log lines as those of the HTTP API."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from graphql import GraphQLError
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from server.errors import TooMany
from server.graph.context import Context
from server.graph.errors import present_error
from server.graph.view import GraphView
from server.history.database import DatabaseAway
from server.identity.callers import Caller
from server.identity.presence import Presence
from server.settings import Settings

pytestmark = pytest.mark.quick

NOTHING: Any = None
SUBSCRIPTION = {"query": "subscription { conversationsChanged { cursor } }"}


@pytest.fixture
async def graph() -> AsyncIterator[httpx.AsyncClient]:
    """A client of /graphql in a process that accepts no stream."""
    view, presence = GraphView(Settings()), Presence(NOTHING, 0)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"request_id": "req_test", "presence": presence, "send": send}
        await view(scope, receive, send)

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


def signed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    caller = Caller("acct_x", None, None, "session")

    async def context_of(_request: object) -> Context:
        return Context(NOTHING, NOTHING, NOTHING, "req_test", caller)

    monkeypatch.setattr("server.graph.view.context_of", context_of)


async def test_a_stream_beyond_the_limit_has_retry_after_and_is_audited(
    graph: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed_in(monkeypatch)

    with capture_logs() as logs:
        response = await graph.post("/", json=SUBSCRIPTION, headers={"Accept": "text/event-stream"})

    assert (response.status_code, response.headers["retry-after"]) == (429, "1")
    assert logs == [
        {
            "event": "audit_refused",
            "request": "req_test",
            "path": "/graphql",
            "code": "too_many_streams",
            "log_level": "info",
        }
    ]


async def test_an_unavailable_database_is_logged_and_has_retry_after(
    graph: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def context_of(_request: object) -> Context:
        raise DatabaseAway("locked")

    monkeypatch.setattr("server.graph.view.context_of", context_of)

    with capture_logs() as logs:
        response = await graph.post("/", json=SUBSCRIPTION)

    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert [(line["event"], line["reason"]) for line in logs] == [("unavailable", "locked")]


def test_a_limit_reached_inside_an_operation_is_audited() -> None:
    refused = TooMany("too_many_searches", "Too many.", limit=2, retry_after_s=1)

    with capture_logs() as logs:
        error = present_error(GraphQLError("x", original_error=refused), "req_test")

    assert error.extensions == {"code": "too_many_searches", "limit": 2, "retryAfterS": 1}
    assert [(line["event"], line["code"]) for line in logs] == [
        ("audit_refused", "too_many_searches")
    ]
