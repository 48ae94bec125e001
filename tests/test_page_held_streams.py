"""The page behind something that holds event streams back."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from server.bench.processes import free_port
from tests.browser import Window, windows
from tests.holding_proxy import HoldingProxy, holding_proxy
from tests.system import System
from tests.waiting import until

pytestmark = pytest.mark.slow

UNTIL_THE_END = 1 << 30
BLOCKED = "Live updates are blocked by something between you and the server"


@pytest.fixture(params=[UNTIL_THE_END, 4096])
def proxy(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HoldingProxy]:
    listening, port = free_port(), free_port()
    system = System(
        tmp_path_factory.mktemp("held"),
        {
            "server": {"public_url": f"http://127.0.0.1:{listening}"},
            "auth": {"guests": True},
            "generation": {"demo": True, "titles": False},
        },
    )
    try:
        system.start(webs=0)
        web = system.start_web_on(port)
        with holding_proxy(web.url, listening, request.param) as proxy:
            proxy.url = f"http://127.0.0.1:{listening}"
            yield proxy
    finally:
        system.close()


def sign(window: Window) -> object:
    return window.page.get_by_role("status").filter(has_text="Delayed")


def test_the_page_asks_for_events_when_streams_are_held_back(
    proxy: HoldingProxy, browser: Browser
) -> None:
    with windows(browser, proxy.url) as new_window:
        window = new_window().open()
        for _ in range(12):  # so that the list alone fills small buffers
            window.page.request.post(
                f"{proxy.url}/api/messages",
                data={"text": "/demo tokens=1\n" + "word " * 80},
                headers={"Sec-Fetch-Site": "same-origin"},
            )
        expect(window.page.get_by_text(BLOCKED)).to_be_visible()
        expect(sign(window)).to_be_visible()
        window.page.get_by_role("link", name="New chat").last.click()

        window.send("/demo tokens=100 rate=50")
        sightings = window.watch_until_settled()

        assert window.words() == window.stored()["text"].split()
        assert len({len(text) for text in sightings}) > 3, "the answer did not grow"
        window.page.reload()
        expect(window.page.locator(".side .row")).to_have_count(13)
        window.wait_until_settled()
        assert window.words() == window.stored()["text"].split()


def test_the_page_returns_to_the_stream_in_another_network(
    proxy: HoldingProxy, browser: Browser
) -> None:
    with windows(browser, proxy.url) as new_window:
        window = new_window().open()
        expect(sign(window)).to_be_visible()

        proxy.hold_bytes = 1
        streamed = proxy.streamed
        window.page.context.set_offline(True)
        window.page.context.set_offline(False)

        until(lambda: proxy.streamed > streamed, "a stream")
        expect(sign(window)).to_have_count(0)
        polled = proxy.polled
        window.send("/demo tokens=100 rate=50")
        window.wait_until_settled()
        assert window.words() == window.stored()["text"].split()
        assert proxy.polled == polled
