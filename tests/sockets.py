"""A client of GraphQL over WebSocket that sends exactly the given messages."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

PROTOCOL = Subprotocol("graphql-transport-ws")
EVENTS = (
    "subscription ($id: ID!, $after: String) { "
    "generationEvents(id: $id, after: $after) { __typename cursor seq } }"
)


@asynccontextmanager
async def socket(
    url: str, key: str | None = None, **options: Any
) -> AsyncIterator[ClientConnection]:
    """An open connection on which nothing has been sent; `key` goes into the handshake."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    options = {
        "subprotocols": [PROTOCOL],
        "additional_headers": headers,
        "compression": None,
        "proxy": None,
    } | options
    async with connect(
        url.replace("http", "ws", 1) + "/graphql", max_size=None, **options
    ) as connection:
        yield connection


@asynccontextmanager
async def signed_in(url: str, key: str, **options: Any) -> AsyncIterator[ClientConnection]:
    """A connection that authenticated with its first message."""
    async with socket(url, **options) as connection:
        await send(
            connection, {"type": "connection_init", "payload": {"authorization": f"Bearer {key}"}}
        )
        assert await receive(connection) == {"type": "connection_ack"}
        yield connection


async def send(connection: ClientConnection, message: Any) -> None:
    await connection.send(json.dumps(message))


async def receive(connection: ClientConnection) -> Any:
    return json.loads(await connection.recv())


async def subscribe(
    connection: ClientConnection, operation: str, query: str = EVENTS, /, **variables: Any
) -> None:
    await send(
        connection,
        {"id": operation, "type": "subscribe", "payload": {"query": query, "variables": variables}},
    )


async def closed(connection: ClientConnection) -> tuple[int | None, list[Any]]:
    """Receive until the server closes; return the close code and the messages before it."""
    messages = []
    with suppress(ConnectionClosed):
        while True:
            messages.append(await receive(connection))
    return (
        connection.protocol.close_rcvd.code if connection.protocol.close_rcvd else 1006
    ), messages


async def until_complete(connection: ClientConnection, id: str) -> list[Any]:
    """The results of an operation up to its end."""
    results = []
    while (message := await receive(connection)) != {"id": id, "type": "complete"}:
        assert (message["type"], message["id"]) == ("next", id), message
        results.append(message["payload"])
    return results
