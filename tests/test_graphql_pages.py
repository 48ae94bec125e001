"""The change feed in GraphQL: `conversationEvents` and `conversationsChanged`.

They carry what `GET /api/events` sends to a page.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from tests.client import TERMINAL, Client
from tests.system import System
from tests.test_subscriptions import ACCEPT, streamed

CONVERSATION = """subscription ($id: ID!, $after: String) {
  conversationEvents(id: $id, after: $after) {
    __typename cursor
    ... on ConversationOpened { conversation { id title } messages { id text status }
      hasOlderMessages generations { id seq status text } }
    ... on ConversationChanged { conversation { id title pinned } }
    ... on ConversationRemoved { conversationId }
    ... on MessageChanged { message { id role status text } }
    ... on GenerationEvent { generationId seq }
    ... on GenerationTextDelta { text }
  }
}"""
LIST = """subscription ($after: String) {
  conversationsChanged(after: $after) {
    __typename cursor
    ... on ConversationChanged { conversation { id title pinned archived } }
    ... on ConversationRemoved { conversationId }
  }
}"""

Event = dict[str, Any]


async def subscribed(client: Client, query: str, **variables: Any) -> AsyncGenerator[Event, None]:
    """The events of one subscription, to its completion."""
    async for result in streamed(client, ACCEPT["sse"], query, **variables):
        if result == "complete":
            return
        yield next(iter(result["data"].values()))
    raise AssertionError("the stream ended without `complete`")


async def read(
    client: Client, query: str, until: Callable[[list[Event]], bool], **variables: Any
) -> list[Event]:
    """The events of one subscription until `until` holds."""
    events: list[Event] = []
    async with aclosing(subscribed(client, query, **variables)) as stream:
        async for event in stream:
            events.append(event)
            if until(events):
                break
    return events


async def begin(
    client: Client, query: str, until: Callable[[list[Event]], bool], **variables: Any
) -> asyncio.Task[list[Event]]:
    """Start reading in a task and wait for the first event."""
    started = asyncio.Event()

    def enough(events: list[Event]) -> bool:
        started.set()
        return until(events)

    reading = asyncio.create_task(read(client, query, enough, **variables))
    reading.add_done_callback(lambda _: started.set())
    await started.wait()
    return reading


def settled(count: int) -> Callable[[list[Event]], bool]:
    """Holds once this many answers have ended, as messages."""

    def enough(events: list[Event]) -> bool:
        ended = [
            each
            for each in events
            if each["__typename"] == "MessageChanged" and each["message"]["role"] == "ASSISTANT"
        ]
        return (
            len([each for each in ended if each["message"]["status"].lower() in TERMINAL]) >= count
        )

    return enough


def of_answers(events: list[Event]) -> list[tuple[str, int]]:
    return [(each["generationId"], each["seq"]) for each in events if "seq" in each]


async def test_a_conversation_is_followed_from_its_opening_through_an_answer(
    client: Client,
) -> None:
    sent = await client.send("/demo tokens=5 rate=0")
    await client.read(sent["generation_id"])
    following = await begin(client, CONVERSATION, settled(1), id=sent["conversation_id"])

    more = await client.send("/demo tokens=40 rate=200", conversation_id=sent["conversation_id"])

    events = await following
    opened, *changed = events
    assert opened["__typename"] == "ConversationOpened"
    assert opened["conversation"]["id"] == sent["conversation_id"]
    assert opened["messages"][0]["id"] == sent["question_id"]
    assert {each["message"]["id"] for each in changed if "message" in each} >= {more["message_id"]}
    native = await client.read(more["generation_id"])
    seqs = [each["seq"] for each in changed if each.get("generationId") == more["generation_id"]]
    assert seqs == [event.seq for event in native if event.seq >= seqs[0]]
    assert changed[-1]["message"]["text"] == (await client.message(more["message_id"]))["text"]


async def test_resuming_at_any_cursor_delivers_every_event_exactly_once(client: Client) -> None:
    sent = await client.send("/demo tokens=3 rate=0")
    await client.read(sent["generation_id"])
    [opened] = await read(
        client, CONVERSATION, lambda events: len(events) == 1, id=sent["conversation_id"]
    )
    following = {"id": sent["conversation_id"], "after": opened["cursor"]}
    whole = asyncio.create_task(read(client, CONVERSATION, settled(1), **following))
    pieces = asyncio.create_task(in_pieces(client, random.Random(5), **following))
    more = await client.send("/demo tokens=80 rate=40", conversation_id=sent["conversation_id"])
    await client.http.patch(f"/api/conversations/{sent['conversation_id']}", json={"pinned": True})

    events, joined = await asyncio.gather(whole, pieces)

    native = [
        (more["generation_id"], event.seq) for event in await client.read(more["generation_id"])
    ]
    assert of_answers(events) == of_answers(joined) == native
    assert any(
        each["__typename"] == "ConversationChanged" and each["conversation"]["pinned"]
        for each in joined
    )


async def in_pieces(
    client: Client, rng: random.Random, after: str, **variables: Any
) -> list[Event]:
    """The events until an answer has ended, read over many short connections."""
    collected: list[Event] = []
    while not settled(1)(collected):
        size = rng.randrange(1, 12)
        received = await read(
            client,
            CONVERSATION,
            lambda events, size=size: len(events) >= size or settled(1)(events),
            after=after,
            **variables,
        )
        collected += received
        after = received[-1]["cursor"]
    return collected


async def test_two_subscribers_of_one_conversation_receive_the_same_events(client: Client) -> None:
    sent = await client.send("/demo tokens=200 rate=100")

    first, second = await asyncio.gather(
        *(
            read(client, CONVERSATION, settled(1), id=sent["conversation_id"], after=None)
            for _ in range(2)
        )
    )

    tails = [[each for each in of_answers(events) if each[1] > 40] for events in (first, second)]
    assert tails[0] == tails[1] != []


async def test_the_list_subscription_sends_changes_and_resumes(tidemark: System) -> None:
    async with Client(tidemark.web.url, tidemark.new_key(account="lister@example.com")) as client:
        following = await begin(
            client,
            LIST,
            lambda events: any(each["__typename"] == "ConversationRemoved" for each in events),
        )
        sent = await client.send("/demo tokens=3 rate=0")
        await client.read(sent["generation_id"])
        path = f"/api/conversations/{sent['conversation_id']}"
        await client.http.patch(path, json={"title": "Tides"})
        await client.http.delete(path)

        opened, *changes = await following

        assert opened["__typename"] == "ConversationsOpened"
        assert changes[-1] == {
            "__typename": "ConversationRemoved",
            "cursor": changes[-1]["cursor"],
            "conversationId": sent["conversation_id"],
        }
        [again] = await read(client, LIST, lambda events: len(events) == 1, after=opened["cursor"])
        assert again["__typename"] == "ConversationRemoved", "only the last state of a row is sent"


async def test_deleting_a_conversation_completes_its_subscription(
    client: Client,
) -> None:
    sent = await client.send("/demo tokens=500 rate=50")
    following = await begin(client, CONVERSATION, lambda _: False, id=sent["conversation_id"])
    await client.http.delete(f"/api/conversations/{sent['conversation_id']}")

    events = await following

    assert events[-1]["__typename"] == "ConversationRemoved"


async def test_a_foreign_conversation_is_not_found_and_a_bad_cursor_is_refused(
    tidemark: System, client: Client
) -> None:
    sent = await client.send("/demo tokens=1 rate=0")
    async with Client(
        tidemark.web.url, tidemark.new_key(account="passer-by@example.com")
    ) as stranger:
        results = []
        for id in (sent["conversation_id"], sent["conversation_id"][:-1] + "0", "conv_x"):
            result, end = [
                each async for each in streamed(stranger, ACCEPT["sse"], CONVERSATION, id=id)
            ]
            results.append(result)
            assert end == "complete"
    bad, _ = [each async for each in streamed(client, ACCEPT["sse"], LIST, after="x")]

    assert results[0]["errors"][0]["extensions"]["code"] == "not_found"
    assert results[0] == results[1] == results[2]
    assert bad["errors"][0]["extensions"]["code"] == "invalid_cursor"
