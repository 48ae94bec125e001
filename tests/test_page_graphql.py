"""What the page does through GraphQL: undoing a deletion, API keys, search. A server without it gets a page without it."""

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.browser import NewWindow, Window, open_browser, windows
from tests.system import System

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    system = System(tmp_path_factory.mktemp("graphql"), {"auth": {"guest_sessions_max_per_hour_per_ip": 1000}})
    try:
        yield system.start()
    finally:
        system.close()


@pytest.fixture
def window(browser: Browser, served: System) -> Iterator[Window]:
    def make(new: NewWindow) -> Window:
        return new(permissions=["clipboard-read", "clipboard-write"]).open()

    with windows(browser, served.web.url) as new:
        yield make(new)


@pytest.fixture(scope="module")
def offered(served: System) -> set[str]:
    """The fields that the server's schema has."""
    asked = {"query": '{ q: __type(name: "Query") { fields { name } } m: __type(name: "Mutation") { fields { name } } }'}
    answer = httpx.post(f"{served.web.url}/graphql", json=asked, headers={"Authorization": f"Bearer {served.new_key()}"})
    if answer.status_code != 200:
        return set()
    return {field["name"] for type in answer.json()["data"].values() if type for field in type["fields"]}


def need(offered: set[str], field: str) -> None:
    if field not in offered:
        pytest.skip(f"this server has no {field}")


def test_a_deletion_can_be_taken_back(window: Window, offered: set[str]) -> None:
    need(offered, "restoreConversation")
    window.send("/demo tokens=3 rate=0\nkeep me")
    window.wait_until_settled()

    window.button("Options").click()
    window.page.get_by_role("menuitem", name="Delete").click()
    expect(window.page.locator(".side .row")).to_have_count(0)
    window.button("Undo").click()

    expect(window.page.locator(".side .row")).to_contain_text("keep me")
    window.page.locator(".side .row a").click()
    expect(window.page.locator(".question")).to_contain_text("keep me")


def test_a_key_is_shown_once_opens_the_door_and_is_revoked(window: Window, offered: set[str]) -> None:
    need(offered, "createApiKey")
    window.page.get_by_role("button", name="settings").click()
    window.page.get_by_label("Name of the new key").fill("a script")
    window.button("Create key").click()
    secret = window.page.locator(".secret code").inner_text()
    me = {"Authorization": f"Bearer {secret}"}
    window.button("Copy key").click()

    assert window.page.evaluate("() => navigator.clipboard.readText()") == secret
    assert httpx.get(f"{window.url}/api/session", headers=me).json()["account"] == window.get("/api/session")["account"]
    window.button("Close").click()
    window.page.get_by_role("button", name="settings").click()
    expect(window.page.get_by_text("a script")).to_be_visible()
    expect(window.page.locator(".secret")).to_have_count(0)
    window.button("Revoke a script").click()
    expect(window.page.get_by_text("a script")).to_have_count(0)
    assert httpx.get(f"{window.url}/api/session", headers=me).status_code == 401


def test_what_was_said_is_found_marked_and_shown_where_it_was_said(window: Window, offered: set[str]) -> None:
    need(offered, "search")
    window.send("/demo tokens=3 rate=0\nthe marmalade harbour")
    window.wait_until_settled()
    window.page.get_by_role("link", name="New chat").click()

    window.page.get_by_label("Search conversations").fill("marmalade")

    hit = window.page.locator(".results .excerpt", has_text="marmalade")
    expect(hit.locator("mark").first).to_have_text("marmalade")
    hit.first.click()
    expect(window.page.locator(".question")).to_contain_text("marmalade")


def test_without_graphql_the_page_offers_nothing_that_needs_it(window: Window, offered: set[str]) -> None:
    if "createApiKey" in offered:
        pytest.skip("this server has it all")
    window.page.get_by_role("button", name="settings").click()

    expect(window.page.get_by_role("dialog")).to_be_visible()
    expect(window.page.get_by_text("API keys")).to_have_count(0)
