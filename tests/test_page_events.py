"""The page's event stream: it opens with the current state, sends every change, and resumes."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.client import TERMINAL, Client
from tests.databases import both_databases
from tests.graph import mutate
from tests.page_client import Page, page_events
from tests.system import System


@pytest.fixture
async def caller(tidemark: System, request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    """A caller with its own account, so that other tests do not change its lists."""
    async with Client(
        tidemark.web.url, tidemark.new_key(account=f"{abs(hash(request.node.name))}@example.org")
    ) as client:
        yield client


@pytest.fixture
async def elsewhere(tidemark: System, caller: Client) -> AsyncIterator[Client]:
    """The same caller on the other web process."""
    async with Client(tidemark.of("web")[1].url, caller.key) as client:
        yield client


def ended(generation_id: str) -> Any:
    return lambda page: (answer := page.answers.get(generation_id)) and answer[-1].type in TERMINAL


def settled(message_id: str) -> Any:
    return lambda page: page.messages.get(message_id, {}).get("status") in TERMINAL


async def change(client: Client, conversation_id: str, **changes: Any) -> None:
    response = await client.http.patch(f"/api/conversations/{conversation_id}", json=changes)
    assert response.status_code == 200, response.text


async def test_a_page_opens_with_the_current_state_and_follows_its_answers(caller: Client) -> None:
    first = await caller.send("/demo tokens=5 rate=0\nfirst")
    await caller.read_through(first["generation_id"])
    second = await caller.send(
        "/demo tokens=60 rate=100\nsecond", conversation_id=first["conversation_id"]
    )
    page = Page(first["conversation_id"])

    await page.read(caller, until=settled(second["message_id"]))

    assert page.seen[0] == "opened"
    assert list(page.messages)[:4] == [
        first["question_id"],
        first["message_id"],
        second["question_id"],
        second["message_id"],
    ]
    assert (
        page.messages[second["message_id"]]["text"]
        == (await caller.message(second["message_id"]))["text"]
    )
    assert page.seen[-1] == "message_changed", (
        "the events of an answer must precede its final state"
    )
    assert page.answers[second["generation_id"]][-1].type == "completed"
    page.check_answers()


@both_databases
async def test_two_pages_on_two_processes_stay_in_sync(caller: Client, elsewhere: Client) -> None:
    first = await caller.send("/demo tokens=3 rate=0\nfirst")
    await caller.read_through(first["generation_id"])
    conversation_id = first["conversation_id"]
    pages = [Page(conversation_id), Page(conversation_id)]
    await asyncio.gather(pages[0].read(caller, events=1), pages[1].read(elsewhere, events=1))

    async def work() -> dict[str, Any]:
        await change(caller, conversation_id, title="Tides")
        await mutate(
            elsewhere,
            "updateConversation",
            "conversation { pinned }",
            id=conversation_id,
            pinned=True,
        )
        again = await elsewhere.http.post(
            f"/api/messages/{first['message_id']}/regenerate", json={}
        )
        await caller.read_through(again.json()["generation_id"])
        edited = await mutate(
            caller,
            "editMessage",
            "generation { id }",
            id=first["question_id"],
            text="/demo tokens=3 rate=0\nin other words",
        )
        await elsewhere.read_through(edited["generation"]["id"])
        await change(elsewhere, conversation_id, shown_message_id=first["message_id"])
        other = await caller.send("/demo tokens=3 rate=0\nanother conversation")
        await caller.read_through(other["generation_id"])
        await change(caller, other["conversation_id"], title="the last change")
        return other

    def is_done(page: Page) -> bool:
        return any(
            conversation["title"] == "the last change"
            for conversation in page.conversations.values()
        )

    other, _, _ = await asyncio.gather(
        work(), pages[0].read(caller, until=is_done), pages[1].read(elsewhere, until=is_done)
    )

    listed = {each["id"]: each for each in (await caller.get("/api/conversations"))["data"]}
    for page in pages:
        assert page.conversations == listed
        assert page.conversations[conversation_id]["shown_message_id"] == first["message_id"]
        assert page.conversations[conversation_id]["pinned"]
        assert len(page.messages) == 5
        assert other["message_id"] not in page.messages
        page.check_answers()
    assert pages[0].messages == pages[1].messages


@both_databases
@pytest.mark.parametrize("seed", range(6))
async def test_a_page_disconnected_anywhere_resumes_exactly(
    caller: Client, elsewhere: Client, seed: int
) -> None:
    rng = random.Random(seed)
    first = await caller.send("/demo tokens=3 rate=0\nfirst")
    await caller.read_through(first["generation_id"])
    conversation_id = first["conversation_id"]
    page = Page(conversation_id)
    await page.read(caller, events=1)

    async def work() -> None:
        sent = await caller.send(
            "/demo tokens=40 rate=200 reasoning=5\nsecond", conversation_id=conversation_id
        )
        again = (
            await elsewhere.http.post(f"/api/messages/{first['message_id']}/regenerate", json={})
        ).json()
        for n in range(5):
            await change(caller, conversation_id, title=f"title {n}")
        await asyncio.gather(
            caller.read_through(sent["generation_id"]),
            elsewhere.read_through(again["generation_id"]),
        )
        cancelled = await caller.send(
            "/demo tokens=1000 rate=100\nthird", conversation_id=conversation_id
        )
        await asyncio.sleep(0.05)
        await caller.cancel(cancelled["generation_id"])
        await change(caller, conversation_id, title="done")

    def done(page: Page) -> bool:
        return page.conversations.get(conversation_id, {}).get("title") == "done"

    async def read() -> None:
        while not done(page):
            await page.read(rng.choice([caller, elsewhere]), events=rng.randint(1, 6), until=done)

    async with asyncio.timeout(60):
        await asyncio.gather(work(), read())

    assert page.seen.count("opened") == 1, "every cursor must be accepted"
    assert "resync" not in page.seen
    assert len(page.messages) == 7
    for id, message in page.messages.items():
        siblings_then = {key: message[key] for key in ("siblings", "sibling_count")}
        assert message == await caller.message(id) | siblings_then
    assert all(
        events[-1].type in TERMINAL and events[0].type == "queued"
        for events in page.answers.values()
    )
    assert page.answers, "at least one answer must have been streamed"
    page.check_answers()


@both_databases
async def test_a_page_without_a_conversation_receives_only_conversation_events(
    caller: Client,
) -> None:
    page = Page()
    await page.read(caller, events=1)
    sent = await caller.send("/demo tokens=3 rate=0\nfirst")
    await page.read(
        caller,
        until=lambda page: (
            page.conversations.get(sent["conversation_id"], {}).get("active_generations") == []
        ),
    )

    assert (
        await caller.http.delete(f"/api/conversations/{sent['conversation_id']}")
    ).status_code == 204
    await page.read(caller, until=lambda page: not page.conversations)

    assert set(page.seen) == {"opened", "conversation_changed", "conversation_removed"}


async def test_the_active_generations_of_a_conversation_are_updated(caller: Client) -> None:
    page = Page()
    await page.read(caller, events=1)
    sent = await caller.send("/demo tokens=50 rate=100\nfirst")

    def active(expected: list[str]) -> Any:
        return lambda page: (
            page.conversations.get(sent["conversation_id"], {}).get("active_generations")
            == expected
        )

    await page.read(caller, until=active([sent["generation_id"]]))
    await page.read(caller, until=active([]))


@both_databases
async def test_deleting_a_conversation_removes_it_and_ends_its_answer(caller: Client) -> None:
    sent = await caller.send("/demo tokens=1000 rate=100\nlong")
    page = Page(sent["conversation_id"])
    await page.read(caller, events=5)
    assert (
        await caller.http.delete(f"/api/conversations/{sent['conversation_id']}")
    ).status_code == 204

    await page.read(caller, until=ended(sent["generation_id"]))

    assert "conversation_removed" in page.seen
    assert page.answers[sent["generation_id"]][-1].type == "cancelled"
    response = await caller.http.get(
        "/api/events", params={"conversation_id": sent["conversation_id"]}
    )
    assert response.status_code == 404


@both_databases
async def test_switching_conversations_keeps_the_list_without_a_resync(
    caller: Client,
) -> None:
    one, two = (
        await caller.send("/demo tokens=3 rate=0\none"),
        await caller.send("/demo tokens=3 rate=0\ntwo"),
    )
    page = Page(one["conversation_id"])
    await page.read(caller, until=settled(one["message_id"]))
    await caller.read_through(two["generation_id"])
    await change(caller, one["conversation_id"], title="changed while disconnected")

    page.conversation_id = two["conversation_id"]
    page.seen.clear()
    await page.read(caller, until=lambda page: "opened" in page.seen)

    assert page.conversations[one["conversation_id"]]["title"] == "changed while disconnected"
    assert list(page.messages) == [two["question_id"], two["message_id"]]
    assert "resync" not in page.seen


@pytest.mark.parametrize("cursor", ["9000000000000000", "9000000000000000-3"])
async def test_a_cursor_that_cannot_be_resumed_causes_a_resync(caller: Client, cursor: str) -> None:
    sent = await caller.send("/demo tokens=3 rate=0\none")
    page = Page(sent["conversation_id"], cursor)

    await page.read(caller, events=2)

    assert page.seen == ["resync", "opened"]


@pytest.mark.slow
async def test_too_many_missed_changes_cause_a_resync(caller: Client) -> None:
    page = Page()
    await page.read(caller, events=1)
    for n in range(51):
        sent = await asyncio.gather(*(caller.send(f"/demo tokens=0\n{n} {m}") for m in range(10)))
        await asyncio.gather(*(caller.read_through(each["generation_id"]) for each in sent))
    page.seen.clear()

    await page.read(caller, events=2)

    assert page.seen == ["resync", "opened"]


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "-1",
        "01",
        "1-",
        "1-4",
        "1-0conv_x",
        "1.conv_x",
        "1~gen_x.1",
        "1 ",
        "99999999999999999",
        "１",
    ],
)
async def test_a_malformed_page_cursor_is_refused(caller: Client, cursor: str) -> None:
    response = await caller.http.get("/api/events", params={"after": cursor})

    assert response.status_code == 400
    assert response.json()["code"] == "invalid_cursor"


async def test_a_page_opens_with_the_newest_fifty_messages_and_a_cursor_to_older_ones(
    caller: Client,
) -> None:
    conversation_id = None
    for n in range(30):
        sent = await caller.send(
            f"/demo tokens=1 rate=0\n{n}",
            **({"conversation_id": conversation_id} if conversation_id else {}),
        )
        conversation_id = sent["conversation_id"]
        await caller.read_through(sent["generation_id"])

    async for event in page_events(caller, None, conversation_id):
        opened = event.data
        break

    older = await caller.get(
        f"/api/conversations/{conversation_id}/messages", before=opened["before"], limit=100
    )
    assert len(opened["messages"]) == 50
    assert len(older["data"]) == 10
    assert older["data"][-1]["id"] == opened["messages"][0]["parent_id"]


@pytest.mark.slow
async def test_pages_resume_after_their_web_process_dies(new_system: Any) -> None:
    system = new_system().start(webs=2)
    dying, other = system.of("web")
    key = system.new_key()
    async with Client(dying.url, key) as client, Client(other.url, key) as elsewhere:
        sent = await client.send("/demo tokens=300 rate=100\npages")
        pages = [Page(sent["conversation_id"]) for _ in range(20)]

        async def follow(page: Page) -> None:
            try:
                await page.read(client, until=settled(sent["message_id"]))
            except httpx.TransportError:
                await page.read(elsewhere, until=settled(sent["message_id"]))

        async with asyncio.TaskGroup() as tasks:
            for page in pages:
                tasks.create_task(follow(page))
            async with asyncio.timeout(20):
                while not all(len(page.seen) > 20 for page in pages):
                    await asyncio.sleep(0.01)
            dying.kill()
        for page in pages:
            assert page.seen.count("opened") == 1
            page.check_answers()


async def test_a_page_that_asks_again_and_again_misses_and_repeats_nothing(
    caller: Client, elsewhere: Client
) -> None:
    sent = await caller.send("/demo tokens=60 rate=50")
    page = Page(sent["conversation_id"])
    asked = 0
    while not settled(sent["message_id"])(page):
        client = (caller, elsewhere)[asked % 2]
        async for event in page_events(client, page.cursor, page.conversation_id, wait_s=10):
            page.take(event)
        asked += 1

    assert asked > 2
    assert [
        event async for event in page_events(caller, page.cursor, page.conversation_id, 0.1)
    ] == []
    refused = await caller.http.get("/api/events", params={"wait_s": 31})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
