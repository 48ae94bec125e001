"""A guest signs in with a link: their conversations move with them, and no one else's do."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from server.command import people
from tests.client import Client, text_of
from tests.graph import graph, mutate
from tests.installation import Installation
from tests.page_client import Page
from tests.system import System

SAME_ORIGIN = {"sec-fetch-site": "same-origin"}


@pytest.fixture
async def browser(tidemark: System) -> AsyncIterator[Client]:
    """A browser with a guest session."""
    async with Client(tidemark.web.url) as client:
        client.http.headers.update(SAME_ORIGIN)
        assert (await client.http.post("/api/session")).status_code == 201
        yield client


async def link_token(system: Installation, email: str) -> str:
    def make() -> str:
        if email not in {row[1] for row in people.list_users(system.settings)}:
            people.create_user(system.settings, email, admin=False)
        return people.link(system.settings, email).partition("#token=")[2]

    return await asyncio.to_thread(make)


async def sign_in(client: Client, token: str, *, bring: bool = True) -> None:
    body = {"token": token, "bring_conversations": bring}
    response = await client.http.post("/api/session", json=body)
    assert response.status_code == 201, response.text


async def listed(client: Client) -> set[str]:
    return {each["id"] for each in (await client.get("/api/conversations"))["data"]}


async def found(client: Client, words: str) -> set[str]:
    data = await graph(
        client,
        "query ($words: String!) { search(query: $words) { nodes { conversation { id } } } }",
        words=words,
    )
    return {hit["conversation"]["id"] for hit in data["search"]["nodes"]}


async def test_signing_in_adds_the_guests_conversations_to_those_of_the_user(
    tidemark: System, browser: Client
) -> None:
    async with Client(
        tidemark.web.url, await asyncio.to_thread(tidemark.new_key, "k", "joins@example.org")
    ) as user:
        existing = await user.send("/demo tokens=3 rate=0")
        page = Page()
        await page.read(user, events=1)
        sent = await browser.send("/demo tokens=3 rate=0\nalbatross")
        await browser.read(sent["generation_id"])
        assert not await found(user, "albatross")

        await sign_in(browser, await link_token(tidemark, "joins@example.org"))

        assert await found(user, "albatross") == {sent["conversation_id"]}
        both = {existing["conversation_id"], sent["conversation_id"]}
        assert await listed(browser) == await listed(user) == both
        # An open page of the user receives the new conversation.
        await page.read(user, until=lambda page: sent["conversation_id"] in page.conversations)
        assert (await browser.message(sent["message_id"]))["status"] == "completed"


async def test_an_answer_in_progress_moves_and_completes(tidemark: System, browser: Client) -> None:
    sent = await browser.send("/demo tokens=40 rate=40")
    token = await link_token(tidemark, "midway@example.org")

    await sign_in(browser, token)

    page = Page(sent["conversation_id"])
    events = await browser.read(sent["generation_id"])
    assert len(text_of(events).split(" ")) == 40
    await page.read(
        browser,
        until=lambda page: page.messages.get(sent["message_id"], {}).get("status") == "completed",
    )
    page.check_answers()
    assert page.conversations[sent["conversation_id"]]["active_generations"] == []


async def test_an_idempotency_key_stays_valid_after_signing_in(
    tidemark: System, browser: Client
) -> None:
    first = await browser.send("/demo tokens=3 rate=0", key="joined-once")

    await sign_in(browser, await link_token(tidemark, "again@example.org"))

    assert await browser.send("/demo tokens=3 rate=0", key="joined-once") == first


async def test_the_guests_cookie_is_invalid_after_signing_in(
    tidemark: System, browser: Client
) -> None:
    before = dict(browser.http.cookies)

    await sign_in(browser, await link_token(tidemark, "former@example.org"))

    async with Client(tidemark.web.url, cookies=before) as other:
        assert (await other.http.get("/api/session")).status_code == 401


async def test_signing_in_as_another_user_moves_no_conversations(
    tidemark: System, browser: Client
) -> None:
    await sign_in(browser, await link_token(tidemark, "one@example.org"))
    sent = await browser.send("/demo tokens=3 rate=0")
    cookies = dict(browser.http.cookies)

    await sign_in(browser, await link_token(tidemark, "two@example.org"))

    assert await listed(browser) == set()
    async with Client(tidemark.web.url, cookies=cookies) as first:
        assert await listed(first) == {sent["conversation_id"]}


async def test_a_used_link_moves_no_conversations(tidemark: System, browser: Client) -> None:
    token = await link_token(tidemark, "used@example.org")
    async with Client(tidemark.web.url) as other:
        await sign_in(other, token)
        sent = await browser.send("/demo tokens=3 rate=0")

        refused = await browser.http.post("/api/session", json={"token": token})

        assert refused.status_code == 401
        assert await listed(other) == set()
        assert await listed(browser) == {sent["conversation_id"]}


async def test_a_preview_shows_the_account_and_does_not_use_the_link(
    tidemark: System, browser: Client
) -> None:
    token = await link_token(tidemark, "preview@example.org")
    await browser.send("/demo tokens=3 rate=0")

    for _ in range(2):
        preview = await browser.http.post("/api/session/preview", json={"token": token})

        assert preview.json() == {"email": "preview@example.org", "guest_conversations": 1}
    assert (await browser.get("/api/session"))["guest"]
    await sign_in(browser, token)
    used = await browser.http.post("/api/session/preview", json={"token": token})
    assert (used.status_code, used.json()["code"]) == (401, "unauthenticated")


async def test_conversations_are_left_behind_unless_requested(
    tidemark: System, browser: Client
) -> None:
    sent = await browser.send("/demo tokens=3 rate=0\nconfidential")
    before = dict(browser.http.cookies)

    await sign_in(browser, await link_token(tidemark, "mallory@example.org"), bring=False)

    assert await listed(browser) == set()
    assert await found(browser, "confidential") == set()
    missing = await browser.http.get(f"/api/conversations/{sent['conversation_id']}")
    assert missing.status_code == 404
    async with Client(tidemark.web.url, cookies=before) as other:
        assert (await other.http.get("/api/session")).status_code == 401


async def test_a_guests_keys_are_revoked_with_the_last_session(
    tidemark: System, browser: Client
) -> None:
    created = await mutate(browser, "createApiKey", "secret", name="k")
    async with Client(tidemark.web.url, created["secret"]) as by_key:
        await by_key.get("/api/session")

        await browser.http.delete("/api/session")

        assert (await by_key.http.get("/api/session")).status_code == 401
