"""The page's connection: lost replies, no network, many tabs, and a server that dies."""

from collections import Counter
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Route, expect

from tests.browser import NewWindow, Window, lasting_window
from tests.system import System
from tests.waiting import until

pytestmark = pytest.mark.slow


def questions_of(window: Window) -> list[str]:
    """The questions of the open conversation, as the server stores them."""
    conversation = urlsplit(window.page.url).path.removeprefix("/c/")
    messages = window.get(f"/api/conversations/{conversation}/messages")["data"]
    return [message["text"] for message in messages if message["role"] == "user"]


def test_a_message_whose_reply_was_lost_is_retried_with_the_same_key(window: Window) -> None:
    lost: list[str] = []

    def lose_first(route: Route) -> None:
        if not lost:
            lost.append(route.fetch().text())  # the server received it
            route.abort()
        else:
            route.continue_()

    window.page.route("**/api/messages", lose_first)
    window.send("/demo tokens=3 rate=0\nonce")
    window.wait_until_settled()

    assert len(lost) == 1
    assert max(Counter(window.sent).values()) == 2, "the retry must use the same key"
    assert questions_of(window) == ["/demo tokens=3 rate=0\nonce"]
    assert len(window.get("/api/conversations")["data"]) == 1
    expect(window.page.locator(".question")).to_have_count(1)


def test_a_message_sent_offline_survives_a_reload_and_is_sent_once(window: Window) -> None:
    window.send("/demo tokens=3 rate=0\nfirst")
    window.wait_until_settled()

    window.page.context.set_offline(True)
    expect(window.page.locator(".link-sign")).to_have_text("Offline")
    window.field.fill("/demo tokens=4 rate=0\nsecond")
    window.button("Send").click()
    expect(window.page.locator(".question.pending")).to_contain_text("It is kept")
    # Online again, but requests still fail.
    window.page.route("**/api/messages", lambda route: route.abort())
    window.page.context.set_offline(False)
    window.page.reload()
    expect(window.page.locator(".question.pending")).to_contain_text("second")
    window.page.unroute("**/api/messages")

    expect(window.page.locator(".answer")).to_have_count(2)
    window.wait_until_settled()
    expect(window.page.locator(".question.pending")).to_have_count(0)
    assert questions_of(window) == ["/demo tokens=3 rate=0\nfirst", "/demo tokens=4 rate=0\nsecond"]


def test_an_answer_resumes_when_the_network_returns(window: Window) -> None:
    window.send("/demo tokens=160 rate=40\noffline")
    window.wait_for_words(10)

    window.page.context.set_offline(True)
    expect(window.page.locator(".link-sign")).to_have_text("Offline")
    expect(window.answer).to_contain_text("Connection lost")
    window.page.context.set_offline(False)

    window.wait_until_settled()
    assert window.words() == window.stored()["text"].split(" ")
    expect(window.page.locator(".link-sign")).to_have_text("")


def test_eight_tabs_of_one_browser_can_send_and_stream(
    window: Window, new_window: NewWindow
) -> None:
    tabs = [window, *(new_window(beside=window).open() for _ in range(7))]

    for n, tab in enumerate(tabs):
        tab.send(f"/demo tokens=120 rate=40\ntab {n}")

    for n, tab in enumerate(tabs):
        expect(tab.page.locator(".question")).to_contain_text(f"tab {n}")
        tab.wait_until_settled()
        assert tab.words() == tab.stored()["text"].split(" ")
        assert max(Counter(tab.sent).values()) == 1
    for tab in tabs:
        expect(tab.page.locator(".side .row")).to_have_count(8)
        assert tab.faults == []


def test_eight_tabs_show_one_answer(window: Window, new_window: NewWindow) -> None:
    window.send("/demo tokens=240 rate=40\neight readers")
    path = urlsplit(window.page.url).path

    tabs = [window, *(new_window(beside=window).open(path) for _ in range(7))]

    for tab in tabs:
        tab.wait_for_words(5)
    for tab in tabs:
        tab.wait_until_settled()
        assert tab.words() == tab.stored()["text"].split(" ")


def test_a_message_sent_while_the_server_is_down_arrives_once(
    browser: Browser, new_system: Callable[..., System]
) -> None:
    system = new_system()
    with lasting_window(browser, system) as (window, address):
        window.send("/demo tokens=3 rate=0\nbefore")
        window.wait_until_settled()

        system.web.kill()
        expect(window.page.locator(".link-sign")).to_have_text("Reconnecting…")
        window.field.fill("/demo tokens=3 rate=0\nmeanwhile")
        window.button("Send").click()
        address.start_web()

        expect(window.page.locator(".answer")).to_have_count(2)
        window.wait_until_settled()
        assert [text.split("\n")[1] for text in questions_of(window)] == ["before", "meanwhile"]
        expect(window.page.locator(".link-sign")).to_have_text("")


def test_a_tab_hidden_for_long_closes_its_stream_and_catches_up(
    window: Window, served: System
) -> None:
    window.page.clock.install()
    window.page.reload()
    expect(window.field).to_be_visible()
    window.send("/demo tokens=3 rate=0\nseen")
    window.wait_until_settled()
    hide = (
        "hidden => { Object.defineProperty(document, 'hidden', "
        "{ value: hidden, configurable: true });"
    )
    hide += " document.dispatchEvent(new Event('visibilitychange')) }"
    ended: list[str] = []
    window.page.on("requestfailed", lambda request: ended.append(request.url))

    window.page.evaluate(hide, True)
    window.page.clock.fast_forward(40_000)
    until(
        lambda: any("/api/events" in url for url in ended) or window.page.wait_for_timeout(20),
        "the end of the stream",
    )
    key = window.page.evaluate(
        "() => fetch('/api/conversations').then(r => r.json()).then(page => page.data[0].id)"
    )
    window.page.evaluate(
        "id => fetch(`/api/conversations/${id}`, { method: 'PATCH',"
        " headers: { 'content-type': 'application/json' },"
        " body: JSON.stringify({ title: 'Renamed elsewhere' }) })",
        key,
    )
    expect(window.page.locator(".side .row")).not_to_contain_text("Renamed elsewhere")
    window.page.evaluate(hide, False)

    expect(window.page.locator(".side .row")).to_contain_text("Renamed elsewhere")
