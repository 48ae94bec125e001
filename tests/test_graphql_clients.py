"""Common GraphQL clients follow an answer through a restart and see every event exactly once."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from gql import Client as GqlClient
from gql import GraphQLRequest
from gql.transport.exceptions import TransportClosed, TransportConnectionFailed, TransportError
from gql.transport.websockets import WebsocketsTransport

from tests.client import Client
from tests.javascript import packages
from tests.system import System

pytestmark = pytest.mark.slow

QUERY = """subscription ($id: ID!, $after: String) {
  generationEvents(id: $id, after: $after) {
    __typename cursor seq ... on GenerationTextDelta { text } }
}"""
RETRY_S = 0.1
Follow = Callable[[str, str, str], AsyncIterator[dict[str, Any]]]


async def graphql_ws(address: str, key: str, id: str) -> AsyncIterator[dict[str, Any]]:
    async for event in events_of("follow_ws.mjs", address, key, id):
        yield event


async def graphql_sse(address: str, key: str, id: str) -> AsyncIterator[dict[str, Any]]:
    async for event in events_of("follow_sse.mjs", address, key, id):
        yield event


async def events_of(program: str, address: str, key: str, id: str) -> AsyncIterator[dict[str, Any]]:
    """The events that a program of tests/node prints."""
    pipe, environment = asyncio.subprocess.PIPE, os.environ | {"TIDEMARK_KEY": key}
    running = await asyncio.create_subprocess_exec(
        "node",
        program,
        address,
        id,
        cwd=await asyncio.to_thread(packages),
        env=environment,
        stdout=pipe,
        stderr=pipe,
    )
    assert running.stdout is not None
    assert running.stderr is not None
    try:
        async for line in running.stdout:
            yield json.loads(line)
        assert await running.wait() == 0, (await running.stderr.read()).decode()
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()


async def gql(address: str, key: str, id: str) -> AsyncIterator[dict[str, Any]]:
    variables: dict[str, Any] = {"id": id, "after": None}
    request = GraphQLRequest(QUERY, variable_values=variables)
    ended = False
    while not ended:
        transport = WebsocketsTransport(
            f"{address.replace('http', 'ws')}/graphql",
            init_payload={"authorization": f"Bearer {key}"},
            subprotocols=[WebsocketsTransport.GRAPHQLWS_SUBPROTOCOL],
        )
        try:
            async with GqlClient(transport=transport) as session:
                async for result in session.subscribe(request):
                    event = result["generationEvents"]
                    variables["after"] = event["cursor"]
                    yield event
                ended = True
        except (TransportConnectionFailed, TransportClosed, TransportError, OSError):
            await asyncio.sleep(RETRY_S)


@pytest.mark.parametrize(
    "follow", [graphql_ws, graphql_sse, gql], ids=lambda follow: follow.__name__
)
async def test_clients_follow_an_answer_through_a_restart(
    new_system: Callable[..., System], follow: Follow
) -> None:
    system = new_system().start()
    key, address = system.new_key(), system.web.url
    async with Client(address, key) as client:
        sent = await client.send("/demo tokens=300 rate=30")
    seen: list[dict[str, Any]] = []
    restarts: list[Awaitable[Any]] = []
    async for event in follow(address, key, sent["generation_id"]):
        seen.append(event)
        if len(seen) == 20 and not restarts:
            restarts.append(asyncio.create_task(asyncio.to_thread(restart, system, address)))
    await asyncio.gather(*restarts)

    async with Client(address, key) as client:
        events = await client.read(sent["generation_id"])
    assert [each["seq"] for each in seen] == [event.seq for event in events]
    assert "".join(each.get("text", "") for each in seen) == "".join(
        event.data.get("text", "") for event in events
    )
    assert seen[-1]["__typename"] == "GenerationCompleted"


def restart(system: System, address: str) -> None:
    """Stop the web process and start another at the same address."""
    assert system.web.stop() == 0
    system.start_web(port=int(address.rpartition(":")[2]))
