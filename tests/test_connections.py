"""Connections that bring no request are closed, and do not keep others from being served."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from server.serve import protocol
from server.serve.protocol import BoundedProtocol
from server.serve.web_socket import LingeringSocket
from tests.waiting import condition

pytestmark = pytest.mark.quick

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
CONNECTIONS_MAX = 3


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers at once, without reading the body."""
    assert scope["type"] == "http"
    await PlainTextResponse("served")(scope, receive, send)


class Connection:
    """A client that sends bytes and reads responses."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def response(self) -> tuple[int, dict[str, str], bytes]:
        """The next response: its status, headers and body."""
        async with asyncio.timeout(30):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
            status, *lines = head.strip().split("\r\n")
            headers = {
                name.lower(): value for name, value in (line.split(": ", 1) for line in lines)
            }
            body = await self._reader.readexactly(int(headers["content-length"]))
        return int(status.split()[1]), headers, body

    async def closed(self, keep_sending: bytes = b"") -> None:
        """Waits until the server closes the connection, and keeps sending meanwhile."""

        async def trickle() -> None:
            while True:
                self.send(keep_sending)
                await asyncio.sleep(0.01)

        trickling = asyncio.create_task(trickle())
        try:
            async with asyncio.timeout(30):
                with suppress(ConnectionError):
                    assert await self._reader.read() == b""
        finally:
            trickling.cancel()

    def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def serving() -> AsyncIterator[Callable[[], Any]]:
    """Serve the application, and give what opens connections to it."""
    config = uvicorn.Config(
        application,
        http=BoundedProtocol,
        ws=LingeringSocket,
        lifespan="off",
        log_config=None,
        access_log=False,
        limit_concurrency=CONNECTIONS_MAX,
    )
    server = uvicorn.Server(config)
    opened: list[Connection] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        task = asyncio.create_task(server.serve([listening]))
        await condition(lambda: server.started)

        async def connect() -> Connection:
            opened.append(Connection(*await asyncio.open_connection(*listening.getsockname())))
            return opened[-1]

        try:
            yield connect
        finally:
            for connection in opened:
                connection.close()
            server.should_exit = True
            await task


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_WITHIN_S", 0.3)


@pytest.mark.parametrize(
    ("request_", "then"),
    [
        pytest.param(GET, b"\r\n", id="an empty line after a response"),
        pytest.param(POST, b"x", id="the body of a request that is answered"),
        pytest.param(GET, b"GET", id="the beginning of a head"),
    ],
)
async def test_bytes_that_complete_no_request_do_not_keep_a_connection_open(
    short_waits: None, request_: bytes, then: bytes
) -> None:
    async with serving() as connect:
        connection = await connect()
        connection.send(request_)
        status, _headers, _body = await connection.response()

        connection.send(then)
        await connection.closed()

    assert status == 200


async def test_a_client_that_keeps_sending_empty_lines_is_closed_all_the_same(
    short_waits: None,
) -> None:
    async with serving() as connect:
        fresh, served = await connect(), await connect()
        served.send(GET)
        await served.response()

        for connection in (fresh, served):
            await connection.closed(keep_sending=b"\r\n")


async def test_a_connection_serves_again_after_a_body_that_was_not_read() -> None:
    async with serving() as connect:
        connection = await connect()
        connection.send(POST)
        await connection.response()

        connection.send(b"x" * 1000 + GET)

        assert (await connection.response())[0] == 200


async def test_held_connections_are_served_and_new_ones_are_refused() -> None:
    async with serving() as connect:
        held = [await connect() for _ in range(CONNECTIONS_MAX)]
        for connection in held:
            connection.send(GET)
            assert (await connection.response())[0] == 200

        status, headers, body = await (await connect()).response()

        problem = json.loads(body)
        assert (status, problem["code"]) == (503, "too_many_connections")
        assert headers["content-type"] == "application/problem+json"
        assert headers["retry-after"] == "1"
        assert problem["request_id"] == headers["tidemark-request-id"]
        for connection in held:
            connection.send(GET)
            assert (await connection.response())[0] == 200
        held[0].close()
        await condition_of_service(connect)


async def condition_of_service(connect: Callable[[], Any]) -> None:
    """Wait until a new connection is served."""
    async with asyncio.timeout(30):
        while True:
            connection = await connect()
            connection.send(GET)
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                if (await connection.response())[0] == 200:
                    return


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", "head_too_large"),
        (b"no request at all\r\n\r\n", "invalid_http"),
    ],
)
async def test_a_head_that_cannot_be_read_is_answered_with_a_problem(
    head: bytes, code: str
) -> None:
    async with serving() as connect:
        connection = await connect()
        connection.send(head)

        status, headers, body = await connection.response()

    problem = json.loads(body)
    assert (status, problem["status"], problem["code"]) == (400, 400, code)
    assert headers["content-type"] == "application/problem+json"
    assert headers["connection"] == "close"
    assert problem["request_id"] == headers["tidemark-request-id"]
