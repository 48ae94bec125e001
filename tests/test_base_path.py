"""An installation below a path of its host, behind a proxy that keeps or removes the path."""

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, expect

from server.bench.processes import free_port
from tests.browser import windows
from tests.proxies import running_nginx
from tests.system import System

BASE = "/chat"
LOCATIONS = {
    "kept": ("location / {", f"location {BASE}/ {{"),
    "removed": (
        "location / {\n        proxy_pass http://tidemark;",
        f"location {BASE}/ {{\n        proxy_pass http://tidemark/;",
    ),
}


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=LOCATIONS)
def address(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of the installation, with its path."""
    listening, port = free_port(), free_port()
    public_url = f"http://127.0.0.1:{listening}{BASE}/"
    system = System(
        tmp_path_factory.mktemp("below"),
        {
            "server": {"public_url": public_url, "trusted_proxies": ["127.0.0.1"]},
            "auth": {"guests": True},
            "generation": {"demo": True, "titles": False},
        },
    )
    try:
        system.start(webs=0)
        system.start_web_on(port)
        with running_nginx((port, port), LOCATIONS[request.param], port=listening) as url:
            yield f"{url}{BASE}"
    finally:
        system.close()


def test_the_page_works_below_a_path(address: str, browser: Browser) -> None:
    with windows(browser, address) as new_window:
        window = new_window().open()
        window.send("/demo tokens=5")
        window.wait_until_settled()
        conversation = window.page.url
        assert conversation.startswith(f"{address}/c/")

        window.page.reload()
        expect(window.page.locator(".side .row")).to_have_count(1)
        window.page.get_by_role("link", name="New chat").last.click()
        assert window.page.url == f"{address}/"
        window.page.locator(".side .row a").click()
        assert window.page.url == conversation

        window.page.goto(f"{address}/api/docs")
        expect(window.page.get_by_text("/api/messages").first).to_be_visible()
        window.page.goto(f"{address}/graphql")
        expect(window.page.locator(".graphiql-container")).to_be_visible()


def test_addresses_and_cookies_are_below_the_path(address: str) -> None:
    with httpx.Client(trust_env=False, headers={"Sec-Fetch-Site": "same-origin"}) as http:
        opened = http.post(f"{address}/api/session")
        sent = http.post(f"{address}/api/messages", json={"text": "/demo tokens=3"})
        host = address.removesuffix(BASE)
        events = http.get(f"{host}{sent.json()['events_url']}")
        shown = http.get(f"{host}{sent.headers['location']}")
        result = http.post(f"{address}/graphql", json={"query": "{ viewer { account { id } } }"})
        document = http.get(f"{address}/api/openapi.json").json()
        with_slash = http.get(f"{address}/api/models/")

    assert f"Path={BASE}/" in opened.headers["set-cookie"]
    assert sent.headers["location"].startswith(f"{BASE}/api/generations/")
    assert "event: completed" in events.text
    assert shown.json()["id"] == sent.json()["generation_id"]
    assert result.json()["data"]["viewer"]["account"]["id"] == opened.json()["account"]["id"]
    assert with_slash.status_code == 404
    assert document["servers"] == [{"url": BASE}]
