"""A WebSocket whose client reads nothing holds a few results, and the server stops reading from it."""

import asyncio
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from server.graph.context import Context
from server.graph.operations import PreparedSubscription
from server.graph.socket import QUERIES_MAX, WAITING_MAX_BYTES, Socket
from server.identity.callers import Caller
from server.identity.presence import Presence
from tests.waiting import condition

pytestmark = pytest.mark.quick


class Operations:
    """Queries with an immediate result, and subscriptions with one event that do not end."""

    def __init__(self) -> None:
        self.started: list[str] = []

    async def start(self, request: Any, context: Any) -> Any:
        self.started.append(request.query)
        if request.query == "subscription":
            return PreparedSubscription(request, context, Any)
        return b"{}"

    async def results(self, request: Any, context: Any, wrap: Any) -> AsyncIterator[Any]:
        yield wrap([await self.start(request, context)])

    async def events(self, _subscription: Any, wrap: Any) -> AsyncIterator[Any]:
        yield wrap([b"{}"])
        await asyncio.Event().wait()


class SlowClient:
    """A client that reads only while `reads` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.frames: asyncio.Queue[Any] = asyncio.Queue()
        self.reads, self.received, self.taken = asyncio.Event(), [], 0
        self.reads.set()
        self.operations: Any = Operations()
        nothing: Any = None
        caller = Caller("acct_x", None, None, "session")
        context = Context(nothing, Presence(nothing, 10), nothing, "req_test", caller)
        context.services = SimpleNamespace(feeds=SimpleNamespace(stopping=False))  # type: ignore[assignment]

        async def context_of(_connection: object) -> Context:
            return context

        monkeypatch.setattr("server.graph.socket.context_of", context_of)
        state: Any = {"send": self.send}
        scope: Any = {
            "type": "websocket",
            "subprotocols": ["graphql-transport-ws"],
            "headers": [],
            "state": state,
        }
        self.frames.put_nowait({"type": "websocket.connect"})
        self.send_message({"type": "connection_init"})
        self.socket = Socket(self.operations, 100, scope, self.receive, self.send)

    def send_message(self, message: Any) -> None:
        self.frames.put_nowait({"type": "websocket.receive", "text": json.dumps(message)})

    def subscribe(self, id: str, query: str, **variables: Any) -> None:
        payload = {"query": query, "variables": variables}
        self.send_message({"id": id, "type": "subscribe", "payload": payload})

    def disconnect(self) -> None:
        self.frames.put_nowait({"type": "websocket.disconnect", "code": 1000})

    async def receive(self) -> Any:
        frame = await self.frames.get()
        self.taken += 1
        return frame

    async def send(self, message: Any) -> None:
        await self.reads.wait()
        if "text" in message:
            self.received.append(json.loads(message["text"]))

    def acknowledged(self) -> bool:
        return {"type": "connection_ack"} in self.received


@pytest.fixture
async def client(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SlowClient]:
    client = SlowClient(monkeypatch)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(client.socket.serve())
        await condition(client.acknowledged)
        yield client
        client.reads.set()
        client.disconnect()


async def run_ready_tasks() -> None:
    """Runs all tasks until they wait for something."""
    for _ in range(200):
        await asyncio.sleep(0)


async def test_at_most_four_queries_run_until_their_results_are_read(client: SlowClient) -> None:
    client.reads.clear()
    for n in range(50):
        client.subscribe(str(n), f"query {n}")
    await run_ready_tasks()
    started_unread = list(client.operations.started)

    client.reads.set()
    await condition(lambda: len(client.received) == 1 + 2 * 50)

    assert len(started_unread) == QUERIES_MAX
    assert client.operations.started == [f"query {n}" for n in range(50)]
    ended = [each["id"] for each in client.received if each["type"] == "complete"]
    assert sorted(ended, key=int) == [str(n) for n in range(50)]


async def test_subscriptions_do_not_wait_for_each_other(client: SlowClient) -> None:
    for n in range(50):
        client.subscribe(str(n), "subscription")
    await condition(lambda: len(client.received) == 1 + 50)

    client.subscribe("query", "query")
    await condition(lambda: {"id": "query", "type": "complete"} in client.received)


async def test_the_server_stops_reading_while_much_text_waits(client: SlowClient) -> None:
    client.reads.clear()
    large = "x" * (WAITING_MAX_BYTES // 2)
    for n in range(50):
        client.subscribe(str(n), "query", text=large)
    before = client.taken
    await run_ready_tasks()
    taken = client.taken - before

    client.reads.set()
    await condition(lambda: len(client.received) == 1 + 2 * 50)

    assert taken <= QUERIES_MAX + 3


async def test_a_waiting_operation_can_be_cancelled(client: SlowClient) -> None:
    client.reads.clear()
    for n in range(10):
        client.subscribe(str(n), f"query {n}")
    client.send_message({"id": "9", "type": "complete"})
    await run_ready_tasks()

    client.reads.set()
    await condition(lambda: {"id": "8", "type": "complete"} in client.received)

    assert "query 9" not in client.operations.started
