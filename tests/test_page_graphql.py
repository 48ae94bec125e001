"""What the page does through GraphQL: undo a deletion, API keys, search."""

import httpx
import pytest
from playwright.sync_api import expect

from tests.browser import NewWindow, Window

pytestmark = pytest.mark.slow


@pytest.fixture
def window(new_window: NewWindow) -> Window:
    """A window that may use the clipboard."""
    return new_window(permissions=["clipboard-read", "clipboard-write"]).open()


def test_a_deletion_can_be_undone(window: Window) -> None:
    window.send("/demo tokens=3 rate=0\nkeep me")
    window.wait_until_settled()

    window.button("Options").click()
    window.page.get_by_role("menuitem", name="Delete").click()
    expect(window.page.locator(".side .row")).to_have_count(0)
    window.button("Undo").click()

    expect(window.page.locator(".side .row")).to_contain_text("keep me")
    window.page.locator(".side .row a").click()
    expect(window.page.locator(".question")).to_contain_text("keep me")


def test_a_new_key_is_shown_once_and_works_until_it_is_revoked(window: Window) -> None:
    window.page.get_by_role("button", name="settings").click()
    window.page.get_by_label("Name of the new key").fill("a script")
    window.button("Create key").click()
    secret = window.page.locator(".secret code").inner_text()
    headers = {"Authorization": f"Bearer {secret}"}
    window.button("Copy key").click()

    assert window.page.evaluate("() => navigator.clipboard.readText()") == secret
    assert (
        httpx.get(f"{window.url}/api/session", headers=headers).json()["account"]
        == window.get("/api/session")["account"]
    )
    window.button("Close").click()
    window.page.get_by_role("button", name="settings").click()
    expect(window.page.get_by_text("a script")).to_be_visible()
    expect(window.page.locator(".secret")).to_have_count(0)
    window.button("Revoke a script").click()
    expect(window.page.get_by_text("a script")).to_have_count(0)
    assert httpx.get(f"{window.url}/api/session", headers=headers).status_code == 401


def test_a_search_result_is_highlighted_and_opens_its_message(window: Window) -> None:
    window.send("/demo tokens=3 rate=0\nthe marmalade harbour")
    window.wait_until_settled()
    window.page.get_by_role("link", name="New chat").click()

    window.page.get_by_label("Search conversations").fill("marmalade")

    hit = window.page.locator(".results .excerpt", has_text="marmalade")
    expect(hit.locator("mark").first).to_have_text("marmalade")
    highlighted_titles = window.page.locator(".results .title", has=window.page.locator("mark"))
    expect(highlighted_titles).to_have_count(1)
    hit.first.click()
    expect(window.page.locator(".question")).to_contain_text("marmalade")
