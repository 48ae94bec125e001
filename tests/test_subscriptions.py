"""Subscriptions deliver the events of a generation over every transport, resumable anywhere."""

import asyncio
import json
import random
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest

from tests.client import Client, Event
from tests.sockets import closed, receive, signed_in, subscribe, until_complete
from tests.system import System

WHOLE = """subscription ($id: ID!, $after: String, $snapshot: Boolean) {
  generationEvents(id: $id, after: $after, snapshot: $snapshot) {
    __typename cursor seq generationId
    ... on GenerationQueued { conversationId questionId messageId model }
    ... on GenerationStarted { attempt }
    ... on GenerationTextDelta { part text }
    ... on GenerationReasoningDelta { part text }
    ... on GenerationToolCall { part callId name arguments }
    ... on GenerationCompleted { finishReason
      usage { inputTokens outputTokens cachedInputTokens reasoningTokens estimated } }
    ... on GenerationCancelled { usage { outputTokens } }
    ... on GenerationFailed { error { code message retryable } }
    ... on GenerationSnapshot { generation { id seq status text
      content { type ... on TextPart { text } } } }
  }
}"""
ACCEPT = {
    "sse": "text/event-stream",
    "multipart": 'multipart/mixed;boundary="graphql";subscriptionSpec=1.0,application/json',
}


async def streamed(
    client: Client, accept: str, query: str, **variables: Any
) -> AsyncGenerator[Any, None]:
    """The results of an operation over HTTP, and the word `complete` at its completion."""
    body = {"query": query, "variables": variables}
    async with client.http.stream(
        "POST", "/graphql", json=body, headers={"Accept": accept}
    ) as response:
        assert response.status_code == 200, (await response.aread()).decode()
        read = (
            sse if response.headers["content-type"].startswith("text/event-stream") else multipart
        )
        async for result in read(response):
            yield result


async def sse(response: httpx.Response) -> AsyncGenerator[Any, None]:
    buffer = ""
    async for chunk in response.aiter_text():
        buffer += chunk
        while "\n\n" in buffer:
            frame, buffer = buffer.split("\n\n", 1)
            if frame == "event: complete\ndata:":
                yield "complete"
            elif not frame.startswith(":"):
                event, data = frame.split("\n")
                assert event == "event: next"
                yield json.loads(data.removeprefix("data: "))


async def multipart(response: httpx.Response) -> AsyncGenerator[Any, None]:
    assert (
        response.headers["content-type"] == "multipart/mixed;boundary=graphql;subscriptionSpec=1.0"
    )
    buffer = "\r\n"
    async for chunk in response.aiter_text():
        buffer += chunk
        while "\r\n--graphql" in buffer:
            part, buffer = buffer.split("\r\n--graphql", 1)
            if not part:
                continue
            head, _, body = part.partition("\r\n\r\n")
            assert head.endswith("Content-Type: application/json"), part
            if (message := json.loads(body)) != {}:
                yield (
                    message["payload"]
                    if message["payload"] is not None
                    else {"errors": message["errors"]}
                )
    assert buffer in ("", "--\r\n")
    if buffer:
        yield "complete"


async def everything(client: Client, transport: str, query: str, **variables: Any) -> list[Any]:
    """All events of a subscription over the named transport."""
    if transport == "socket":
        assert client.key is not None
        async with signed_in(str(client.http.base_url).rstrip("/"), client.key) as connection:
            await subscribe(connection, "1", query, **variables)
            results = await until_complete(connection, "1")
    else:
        *results, end = [
            result async for result in streamed(client, ACCEPT[transport], query, **variables)
        ]
        assert end == "complete"
    return [next(iter(result["data"].values())) for result in results]


def as_native(received: dict[str, Any]) -> tuple[int, str]:
    """The number and type of an event, named as in the native stream."""
    name = received["__typename"].removeprefix("Generation")
    return received["seq"], "".join(
        "_" + letter.lower() if letter.isupper() else letter for letter in name
    ).lstrip("_")


def check_same(received: list[dict[str, Any]], events: list[Event]) -> None:
    assert [as_native(each) for each in received] == [(event.seq, event.type) for event in events]
    assert [each["cursor"] for each in received] == [str(event.seq) for event in events]
    for each, event in zip(received, events, strict=True):
        if event.type.endswith("_delta"):
            assert (each["part"], each["text"]) == (event.data["part"], event.data["text"])


TRANSPORTS = pytest.mark.parametrize("transport", ["socket", "sse", "multipart"])


@TRANSPORTS
@pytest.mark.parametrize(
    "options",
    [
        "/demo tokens=40 rate=0",
        "/demo tokens=5 rate=0 reasoning=3",
        "/demo tool=1 tokens=2",
        "/demo nonsense=1",
    ],
)
async def test_a_subscription_delivers_the_events_of_the_native_stream(
    client: Client, transport: str, options: str
) -> None:
    sent = await client.send(f"/demo {options}")
    events = await client.read(sent["generation_id"])

    received = await everything(client, transport, WHOLE, id=sent["generation_id"])

    check_same(received, events)


@TRANSPORTS
async def test_a_subscription_resumes_at_any_cursor(client: Client, transport: str) -> None:
    sent = await client.send("/demo tokens=150 rate=150")
    received = await everything(client, transport, WHOLE, id=sent["generation_id"])
    events = await client.read(sent["generation_id"])

    check_same(received, events)
    for cursor in [*random.Random(4).sample(range(1, events[-1].seq), 5), 0, events[-1].seq]:
        rest = await everything(
            client, transport, WHOLE, id=sent["generation_id"], after=str(cursor)
        )
        check_same(rest, [event for event in events if event.seq > cursor])


@TRANSPORTS
async def test_a_subscription_may_start_with_a_snapshot(client: Client, transport: str) -> None:
    sent = await client.send("/demo tokens=30 rate=0")
    await client.read(sent["generation_id"])

    first, last = await everything(
        client, transport, WHOLE, id=sent["generation_id"], snapshot=True, after="5"
    )

    snapshot = await client.snapshot(sent["generation_id"])
    assert first["__typename"] == "GenerationSnapshot"
    assert first["generation"]["text"] == snapshot["text"]
    assert (last["__typename"], last["seq"]) == ("GenerationCompleted", snapshot["seq"])


@TRANSPORTS
async def test_each_subscriber_gets_its_own_aliases_fragments_and_directives(
    client: Client, transport: str
) -> None:
    sent = await client.send("/demo tokens=60 rate=200")
    query = """subscription ($id: ID!, $after: String, $withText: Boolean!) {
      it: generationEvents(id: $id, after: $after) {
        n: seq ...Text @include(if: $withText) kind: __typename @skip(if: $withText) }
    }
    fragment Text on GenerationTextDelta { words: text }"""

    with_text, without_text, native = await asyncio.gather(
        everything(client, transport, query, id=sent["generation_id"], withText=True),
        everything(client, transport, query, id=sent["generation_id"], withText=False),
        everything(client, transport, WHOLE, id=sent["generation_id"]),
    )

    assert (
        [each["n"] for each in with_text]
        == [each["n"] for each in without_text]
        == [each["seq"] for each in native]
    )
    assert [each.get("words") for each in with_text] == [each.get("text") for each in native]
    assert all(set(each) == {"n", "kind"} for each in without_text)


@pytest.mark.parametrize("transport", ["sse", "multipart"])
async def test_queries_and_errors_are_sent_over_the_requested_stream(
    client: Client, transport: str
) -> None:
    accept = ACCEPT[transport]

    query = [result async for result in streamed(client, accept, "{ viewer { account { id } } }")]
    invalid = [result async for result in streamed(client, accept, "subscription { nothing }")]
    missing = [result async for result in streamed(client, accept, WHOLE, id="gen_x")]

    assert query[0]["data"]["viewer"]["account"]["id"].startswith("acct_")
    assert [each[0]["errors"][0]["extensions"]["code"] for each in (invalid, missing)] == [
        "invalid_document",
        "not_found",
    ]
    assert query[1:] == invalid[1:] == missing[1:] == ["complete"]


@TRANSPORTS
async def test_subscribing_to_a_foreign_generation_is_refused(
    tidemark: System, client: Client, transport: str
) -> None:
    sent = await client.send("/demo tokens=1 rate=0")
    await client.read(sent["generation_id"])
    key = tidemark.new_key(account="stranger@example.com")
    async with Client(tidemark.web.url, key) as stranger:
        refusals = []
        for id in (sent["generation_id"], sent["generation_id"][:-1] + "0", "gen_x", ""):
            if transport == "socket":
                async with signed_in(tidemark.web.url, key) as connection:
                    await subscribe(connection, "1", WHOLE, id=id)
                    message = await receive(connection)
                    assert message["type"] == "error"
                    refusals.append(message["payload"])
            else:
                [result, end] = [
                    result async for result in streamed(stranger, ACCEPT[transport], WHOLE, id=id)
                ]
                assert (set(result), end) == ({"errors"}, "complete")
                refusals.append(result["errors"])

    assert refusals[0][0]["extensions"]["code"] == "not_found"
    assert all(refusal == refusals[0] for refusal in refusals)


async def test_unauthenticated_subscriptions_are_refused(tidemark: System) -> None:
    async with Client(tidemark.web.url) as client:
        for accept in ACCEPT.values():
            response = await client.http.post(
                "/graphql", json={"query": WHOLE}, headers={"Accept": accept}
            )
            assert response.status_code == 401


@pytest.mark.slow
async def test_subscriptions_end_when_their_key_is_revoked(new_system: Any) -> None:
    system = new_system().start()
    key, other = system.new_key("gone"), system.new_key("stays")
    async with Client(system.web.url, key) as client, Client(system.web.url, other) as keeper:
        sent = await client.send("/demo tokens=5 first_token_ms=60000")
        async with (
            signed_in(system.web.url, key) as revoked,
            signed_in(system.web.url, other) as kept,
        ):
            for connection in (revoked, kept):
                await subscribe(connection, "1", id=sent["generation_id"])
                await receive(connection)
            stream = streamed(client, ACCEPT["sse"], WHOLE, id=sent["generation_id"])
            await anext(stream)
            [listed] = [line for line in system.run("key", "list").splitlines() if "gone" in line]
            system.run(
                "key", "revoke", next(word for word in listed.split() if word.startswith("key_"))
            )

            code, _ = await closed(revoked)
            assert code == 4403
            assert "complete" not in [result async for result in stream]

            await keeper.cancel(sent["generation_id"])
            assert await until_complete(kept, "1")


@pytest.mark.slow
async def test_a_stopping_web_process_asks_subscribers_to_reconnect_and_they_miss_nothing(
    new_system: Any,
) -> None:
    system = new_system().start()
    key = system.new_key()
    async with Client(system.web.url, key) as client:
        sent = await client.send("/demo tokens=300 rate=50")
        received: list[Any] = []
        async with signed_in(system.web.url, key) as connection:
            await subscribe(connection, "1", WHOLE, id=sent["generation_id"])
            while len(received) < 20:
                received.append((await receive(connection))["payload"]["data"]["generationEvents"])
            stream = streamed(client, ACCEPT["multipart"], WHOLE, id=sent["generation_id"])
            await anext(stream)
            system.web.popen.terminate()
            code, rest = await closed(connection)
            assert "complete" not in [result async for result in stream]
        assert code == 1012
        assert all(message["type"] == "next" for message in rest), (
            "a stopping process must not complete operations"
        )
        received += [message["payload"]["data"]["generationEvents"] for message in rest]
        system.web.popen.wait(20) if system.of("web") else None

        system.start_web()
        async with Client(system.web.url, key) as reconnected:
            received += await everything(
                reconnected, "socket", WHOLE, id=sent["generation_id"], after=received[-1]["cursor"]
            )
            check_same(received, await reconnected.read(sent["generation_id"]))


@pytest.mark.slow
async def test_a_socket_that_is_not_read_is_dropped(new_system: Any) -> None:
    system = new_system(server={"host": "127.0.0.1"}).start()
    key = system.new_key()
    async with Client(system.web.url, key) as client:
        sent = await client.send("/demo tokens=150000 rate=0")
        async with signed_in(system.web.url, key, max_queue=1) as connection:
            for number in range(50):
                await subscribe(connection, str(number), WHOLE, id=sent["generation_id"])

            async def is_dropped() -> bool:
                return bool((await client.get("/status"))["web"]["open_streams"] == 0)

            for _ in range(400):
                if await is_dropped():
                    break
                await asyncio.sleep(0.1)
            assert await is_dropped(), "the socket was not dropped"
            assert (await closed(connection))[0] == 1006, (
                "no close frame can be sent to a client that does not read"
            )
