"""A guest who signs in by a link: nothing that was written is lost, and nobody else's can be taken that way."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from server.command import people
from tests.client import Client, text_of
from tests.graph import graph, mutate
from tests.installation import Installation
from tests.page_client import Page
from tests.system import System

HERE = {"sec-fetch-site": "same-origin"}


@pytest.fixture
async def browser(tidemark: System) -> AsyncIterator[Client]:
    """A browser in which a guest has come in."""
    async with Client(tidemark.web.url) as client:
        client.http.headers.update(HERE)
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
    answer = await client.http.post("/api/session", json=body)
    assert answer.status_code == 201, answer.text


async def listed(client: Client) -> set[str]:
    return {each["id"] for each in (await client.get("/api/conversations"))["data"]}


async def found(client: Client, words: str) -> set[str]:
    data = await graph(
        client,
        "query ($words: String!) { search(query: $words) { nodes { conversation { id } } } }",
        words=words,
    )
    return {hit["conversation"]["id"] for hit in data["search"]["nodes"]}


async def test_what_a_guest_wrote_is_the_users_and_what_the_user_had_is_there_too(
    tidemark: System, browser: Client
) -> None:
    async with Client(
        tidemark.web.url, await asyncio.to_thread(tidemark.new_key, "k", "joins@example.org")
    ) as user:
        had = await user.send("/demo tokens=3 rate=0")
        page = Page()
        await page.read(user, events=1)
        sent = await browser.send("/demo tokens=3 rate=0\nalbatross")
        await browser.read(sent["generation_id"])
        assert not await found(user, "albatross")

        await sign_in(browser, await link_token(tidemark, "joins@example.org"))

        assert await found(user, "albatross") == {sent["conversation_id"]}
        both = {had["conversation_id"], sent["conversation_id"]}
        assert await listed(browser) == await listed(user) == both
        await page.read(
            user, until=lambda page: sent["conversation_id"] in page.conversations
        )  # an open page is told
        assert (await browser.message(sent["message_id"]))["status"] == "completed"


async def test_an_answer_that_is_being_written_goes_on_and_ends_where_it_now_belongs(
    tidemark: System, browser: Client
) -> None:
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


async def test_a_request_sent_again_after_signing_in_is_not_done_twice(
    tidemark: System, browser: Client
) -> None:
    first = await browser.send("/demo tokens=3 rate=0", key="joined-once")

    await sign_in(browser, await link_token(tidemark, "again@example.org"))

    assert await browser.send("/demo tokens=3 rate=0", key="joined-once") == first


async def test_the_guests_cookie_opens_nothing_any_more(tidemark: System, browser: Client) -> None:
    before = dict(browser.http.cookies)

    await sign_in(browser, await link_token(tidemark, "former@example.org"))

    async with Client(tidemark.web.url, cookies=before) as other:
        assert (await other.http.get("/api/session")).status_code == 401


async def test_a_users_session_takes_nothing_along_to_another_user(
    tidemark: System, browser: Client
) -> None:
    await sign_in(browser, await link_token(tidemark, "one@example.org"))
    sent = await browser.send("/demo tokens=3 rate=0")
    cookies = dict(browser.http.cookies)

    await sign_in(browser, await link_token(tidemark, "two@example.org"))

    assert await listed(browser) == set()
    async with Client(tidemark.web.url, cookies=cookies) as first:
        assert await listed(first) == {sent["conversation_id"]}


async def test_a_link_that_was_used_moves_nothing(tidemark: System, browser: Client) -> None:
    token = await link_token(tidemark, "used@example.org")
    async with Client(tidemark.web.url) as other:
        await sign_in(other, token)
        sent = await browser.send("/demo tokens=3 rate=0")

        refused = await browser.http.post("/api/session", json={"token": token})

        assert refused.status_code == 401
        assert await listed(other) == set()
        assert await listed(browser) == {sent["conversation_id"]}


async def test_a_preview_names_the_user_and_uses_nothing_up(
    tidemark: System, browser: Client
) -> None:
    token = await link_token(tidemark, "preview@example.org")
    await browser.send("/demo tokens=3 rate=0")

    for _ in range(2):
        shown = await browser.http.post("/api/session/preview", json={"token": token})

        assert shown.json() == {"email": "preview@example.org", "guest_conversations": 1}
    assert (await browser.get("/api/session"))["guest"]
    await sign_in(browser, token)
    used = await browser.http.post("/api/session/preview", json={"token": token})
    assert (used.status_code, used.json()["code"]) == (401, "unauthenticated")


async def test_conversations_stay_behind_unless_they_are_asked_for(
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


async def test_a_guests_keys_end_with_the_guests_last_session(
    tidemark: System, browser: Client
) -> None:
    made = await mutate(browser, "createApiKey", "secret", name="k")
    async with Client(tidemark.web.url, made["secret"]) as by_key:
        await by_key.get("/api/session")

        await browser.http.delete("/api/session")

        assert (await by_key.http.get("/api/session")).status_code == 401
