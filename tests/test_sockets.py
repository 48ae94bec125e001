"""GraphQL over WebSocket: every protocol violation has its close code and leaks nothing."""

import asyncio
import json
import re
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import httpx
import psutil
import pytest
from websockets.exceptions import InvalidStatus
from websockets.extensions import Extension
from websockets.frames import Frame, Opcode

from tests.client import Client
from tests.sockets import (
    EVENTS,
    PROTOCOL,
    closed,
    receive,
    send,
    signed_in,
    socket,
    subscribe,
    until_complete,
)
from tests.system import System

SILENT = "/demo tokens=5 rate=0 first_token_ms=600000"
INIT = {"type": "connection_init"}


class Resources:
    """Tasks, feeds, streams and connections of a web process."""

    def __init__(self, system: System) -> None:
        self.system = system

    def now(self) -> dict[str, float]:
        text = httpx.get(f"{self.system.web.url}/metrics", trust_env=False).text
        figures = {
            name: float(re.findall(rf"^tidemark_{name} (\S+)", text, re.MULTILINE)[0])
            for name in ("tasks", "open_feeds", "open_streams")
        }
        connections = [
            each.raddr
            for each in psutil.Process(self.system.web.pid).net_connections("tcp")
            if each.status == "ESTABLISHED"
        ]
        return figures | {"connections": len(connections)}


@pytest.fixture
async def no_leaks(tidemark: System, client: Client) -> AsyncIterator[None]:
    """Check after the test that the web process holds no more resources than before."""
    held = Resources(tidemark)
    await client.get("/healthz")  # open the pooled connection first
    before = held.now()
    yield
    for _ in range(200):
        after = held.now()
        if all(after[name] <= before[name] for name in before):
            return
        await asyncio.sleep(0.05)
    assert after == before


BAD_FRAMES: dict[str, Any] = {
    "not JSON": "{",
    "binary": b'{"type":"connection_init"}',
    "a list": "[]",
    "null": "null",
    "a number": "5",
    "deep": "[" * 100_000,
    "deeper than Python": '{"a":' * 5_000,
    "empty": "",
    "lone surrogate": '"\\ud800"',
    "unknown type": '{"type":"start"}',
    "no type": "{}",
    "a list for a type": '{"type":[]}',
    "payload of init": '{"type":"connection_init","payload":[]}',
    "complete without an id": '{"type":"complete"}',
}


@pytest.mark.parametrize("frame", BAD_FRAMES.values(), ids=BAD_FRAMES)
async def test_a_frame_that_is_not_a_message_closes_with_4400(
    tidemark: System, frame: Any, no_leaks: None
) -> None:
    async with socket(tidemark.web.url) as connection:
        await connection.send(frame)

        assert await closed(connection) == (4400, [])


BAD_SUBSCRIPTIONS: dict[str, Any] = {
    "no id": {"payload": {"query": "{ viewer { account { id } } }"}},
    "an empty id": {"id": "", "payload": {"query": "{ viewer { account { id } } }"}},
    "a number for an id": {"id": 1, "payload": {"query": "{ viewer { account { id } } }"}},
    "an object for an id": {"id": {}, "payload": {"query": "{ viewer { account { id } } }"}},
    "a long id": {"id": "x" * 300, "payload": {"query": "{ viewer { account { id } } }"}},
    "no payload": {"id": "1"},
    "null for a payload": {"id": "1", "payload": None},
    "no query": {"id": "1", "payload": {}},
    "a number for a query": {"id": "1", "payload": {"query": 1}},
    "a list of variables": {"id": "1", "payload": {"query": "{ a }", "variables": []}},
    "a number for a name": {"id": "1", "payload": {"query": "{ a }", "operationName": 1}},
    "a string of extensions": {"id": "1", "payload": {"query": "{ a }", "extensions": "x"}},
}


@pytest.mark.parametrize("message", BAD_SUBSCRIPTIONS.values(), ids=BAD_SUBSCRIPTIONS)
async def test_a_malformed_subscribe_closes_with_4400(
    tidemark: System, key: str, message: Any, no_leaks: None
) -> None:
    async with signed_in(tidemark.web.url, key) as connection:
        await send(connection, {"type": "subscribe", **message})

        assert await closed(connection) == (4400, [])


async def test_the_key_may_be_in_the_handshake_or_in_the_first_message(
    tidemark: System, key: str, no_leaks: None
) -> None:
    async with socket(tidemark.web.url, key) as connection:
        await send(connection, INIT | {"payload": None})
        assert await receive(connection) == {"type": "connection_ack"}
    async with socket(tidemark.web.url, key) as connection:
        await send(connection, INIT)
        assert await receive(connection) == {"type": "connection_ack"}
    async with signed_in(tidemark.web.url, key) as connection:
        await subscribe(connection, "1", "{ viewer { account { id } } }")
        [result] = await until_complete(connection, "1")

    assert result["data"]["viewer"]["account"]["id"].startswith("acct_")


@pytest.mark.parametrize(
    "payload",
    [None, {}, {"authorization": "Bearer tmk_x"}, {"authorization": 5}, {"authorization": "x"}],
    ids=str,
)
async def test_bad_credentials_close_with_4403(
    tidemark: System, payload: Any, no_leaks: None
) -> None:
    for bad in (None, "tmk_nobody"):
        async with socket(tidemark.web.url, bad) as connection:
            await send(connection, INIT | {"payload": payload})

            assert await closed(connection) == (4403, [])


async def test_a_second_init_closes_with_4429(tidemark: System, key: str, no_leaks: None) -> None:
    async with signed_in(tidemark.web.url, key) as connection:
        await send(connection, INIT)

        assert await closed(connection) == (4429, [])


@pytest.mark.slow
async def test_a_client_without_init_is_closed_with_4408(tidemark: System, no_leaks: None) -> None:
    async with socket(tidemark.web.url) as connection:
        await send(connection, {"type": "ping"})

        assert await closed(connection) == (4408, [{"type": "pong"}])


async def test_a_subscribe_before_init_closes_with_4401(
    tidemark: System, key: str, no_leaks: None
) -> None:
    async with socket(tidemark.web.url, key) as connection:
        await subscribe(connection, "1")

        assert await closed(connection) == (4401, [])


async def test_an_id_in_use_closes_with_4409(
    tidemark: System, client: Client, key: str, no_leaks: None
) -> None:
    sent = await client.send(SILENT)
    async with signed_in(tidemark.web.url, key) as connection:
        await subscribe(connection, "a", id=sent["generation_id"])
        await receive(connection)
        await subscribe(connection, "a", id=sent["generation_id"])

        assert (await closed(connection))[0] == 4409
    await client.cancel(sent["generation_id"])


async def test_a_ping_is_answered_with_its_payload(tidemark: System, key: str) -> None:
    async with signed_in(tidemark.web.url, key) as connection:
        for payload in ({"a": [1, None]}, {}, None):
            await send(connection, {"type": "ping", "payload": payload})
            assert await receive(connection) == {"type": "pong", "payload": payload}
        await send(connection, {"type": "pong", "payload": {"unsolicited": True}})
        await send(connection, {"type": "ping"})
        assert await receive(connection) == {"type": "pong"}


async def test_no_results_follow_after_complete(
    tidemark: System, client: Client, key: str, no_leaks: None
) -> None:
    sent = await client.send("/demo tokens=2000 rate=500")
    async with signed_in(tidemark.web.url, key) as connection:
        await subscribe(connection, "a", id=sent["generation_id"])
        for _ in range(20):
            assert (await receive(connection))["type"] == "next"
        await send(connection, {"id": "a", "type": "complete"})
        await send(connection, {"type": "ping"})
        while (message := await receive(connection)) != {"type": "pong"}:
            assert message["id"] == "a"
        await subscribe(connection, "b", "{ viewer { account { id } } }")
        assert [(await receive(connection))["id"] for _ in range(2)] == ["b", "b"]
        await send(connection, {"id": "never there", "type": "complete"})
        await subscribe(connection, "a", "{ viewer { account { id } } }")
        assert len(await until_complete(connection, "a")) == 1
    await client.cancel(sent["generation_id"])


async def test_the_101st_operation_closes_with_4429(
    tidemark: System, client: Client, key: str, no_leaks: None
) -> None:
    sent = await client.send(SILENT)
    async with signed_in(tidemark.web.url, key) as connection:
        for number in range(100):
            await subscribe(connection, str(number), id=sent["generation_id"])
        await send(connection, {"type": "ping"})
        while await receive(connection) != {"type": "pong"}:
            pass
        await subscribe(connection, "one more", id=sent["generation_id"])

        assert (await closed(connection))[0] == 4429
    await client.cancel(sent["generation_id"])


async def test_completed_operations_do_not_count_towards_the_limit(
    tidemark: System, key: str, no_leaks: None
) -> None:
    async with signed_in(tidemark.web.url, key) as connection:
        for number in range(300):
            await subscribe(connection, str(number), EVENTS, id="gen_unknown")
            await send(connection, {"id": str(number), "type": "complete"})
        await send(connection, {"type": "ping"})
        while (await receive(connection)) != {"type": "pong"}:
            pass


@pytest.mark.parametrize("offered", [["graphql-ws"], None, ["chat", "graphql-ws"]], ids=str)
async def test_another_subprotocol_closes_with_4406(
    tidemark: System, key: str, offered: Any, no_leaks: None
) -> None:
    async with socket(tidemark.web.url, key, subprotocols=offered) as connection:
        assert await closed(connection) == (4406, [])


async def test_the_right_subprotocol_is_chosen_at_any_position(tidemark: System, key: str) -> None:
    async with socket(tidemark.web.url, key, subprotocols=["graphql-ws", PROTOCOL]) as connection:
        assert connection.subprotocol == PROTOCOL


async def test_an_error_ends_only_its_operation(tidemark: System, key: str) -> None:
    cases = {
        "{ nothing }": "invalid_document",
        "{": "invalid_document",
        "": "invalid_document",
        'subscription { generationEvents(id: "gen_x") { seq } }': "not_found",
        'subscription { generationEvents(id: "gen_x", after: "x") { seq } }': "invalid_cursor",
    }
    async with signed_in(tidemark.web.url, key) as connection:
        for number, (query, code) in enumerate(cases.items()):
            await subscribe(connection, str(number), query)
            message = await receive(connection)
            assert (message["id"], message["type"]) == (str(number), "error"), message
            assert [error["extensions"]["code"] for error in message["payload"]][:1] == [code], (
                query
            )
        await subscribe(connection, "last", "{ viewer { account { id } } }")
        assert len(await until_complete(connection, "last")) == 1


class Bomb(Extension):
    """Marks messages as compressed, whatever was negotiated."""

    name = "bomb"

    def decode(self, frame: Frame, **_limits: Any) -> Frame:  # type: ignore[override]
        return frame

    def encode(self, frame: Frame) -> Frame:
        if frame.opcode is not Opcode.TEXT:
            return frame
        deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        return Frame(
            frame.opcode,
            deflate.compress(frame.data) + deflate.flush(zlib.Z_SYNC_FLUSH)[:-4],
            frame.fin,
            rsv1=True,
        )


async def test_a_large_message_closes_with_1009_and_uses_no_memory(
    tidemark: System, key: str, no_leaks: None
) -> None:
    memory_before = psutil.Process(tidemark.web.pid).memory_info().rss
    # The client's `close` fails on its own transport, which is closed by then.
    async with AsyncExitStack() as stack:
        stack.enter_context(suppress(AttributeError))
        connection = await stack.enter_async_context(
            signed_in(tidemark.web.url, key, compression="deflate")
        )
        assert connection.protocol.extensions == [], "the server must not negotiate compression"
        sending = asyncio.create_task(connection.send(" " * 200_000_000))

        code, _ = await closed(connection)
        await asyncio.gather(sending, return_exceptions=True)

    assert code == 1009
    assert psutil.Process(tidemark.web.pid).memory_info().rss - memory_before < 20_000_000


async def test_a_decompression_bomb_is_not_inflated(
    tidemark: System, key: str, no_leaks: None
) -> None:
    memory_before = psutil.Process(tidemark.web.pid).memory_info().rss
    async with signed_in(tidemark.web.url, key) as connection:
        connection.protocol.extensions = [Bomb()]
        await connection.send(" " * 200_000_000)

        assert (await closed(connection))[0] == 1002, "compression was not negotiated"

    assert psutil.Process(tidemark.web.pid).memory_info().rss - memory_before < 20_000_000


async def test_a_page_of_another_site_cannot_connect_with_the_cookie(
    tidemark: System, client: Client
) -> None:
    url = tidemark.web.url
    async with httpx.AsyncClient(base_url=url, trust_env=False) as browser:
        await browser.post("/api/session")
        cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())

    for origin in (
        "https://evil.example",
        "null",
        url.replace("http:", "https:"),
        url + ".evil.example",
        None,
    ):
        with pytest.raises(InvalidStatus) as refused:
            async with socket(
                url, additional_headers={"Cookie": cookie} | ({"Origin": origin} if origin else {})
            ):
                pass
        assert refused.value.response.status_code == 403, origin
        assert json.loads(refused.value.response.body)["code"] == "cross_site"

    async with socket(url, additional_headers={"Cookie": cookie, "Origin": url}) as connection:
        await send(connection, INIT)
        assert await receive(connection) == {"type": "connection_ack"}


async def test_another_site_may_connect_with_a_key(tidemark: System, key: str) -> None:
    async with signed_in(
        tidemark.web.url, key, additional_headers={"Origin": "https://integrator.example"}
    ):
        pass


async def test_a_foreign_host_is_refused_before_the_handshake(tidemark: System, key: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with socket(
            "http://evil.example", host="127.0.0.1", port=int(tidemark.web.url.rpartition(":")[2])
        ):
            pass
    assert refused.value.response.status_code == 400
