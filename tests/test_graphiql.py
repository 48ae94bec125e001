"""GraphiQL in a real browser: it is all from here, and runs queries and subscriptions as whoever is signed in."""

import re
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from server.serve.pages import FOLDER
from tests.browser import Window
from tests.system import System

pytestmark = pytest.mark.slow

FOLLOW = 'subscription Me { generationEvents(id: "%s") { __typename cursor ... on GenerationCompleted { finishReason } } }'
HTML = {"Accept": "text/html,application/xhtml+xml"}


@pytest.fixture
def window(browser: Browser, tidemark: System) -> Iterator[Window]:
    """A window of somebody new, with GraphiQL in it."""
    context = browser.new_context()
    window = Window(context, tidemark.web.url)
    window.page.goto(f"{tidemark.web.url}/graphql")
    window.page.locator(".graphiql-query-editor .CodeMirror").wait_for()
    yield window
    context.close()


def run(page: Page, operation: str) -> None:
    """Runs an operation named Me, as the one is that is there at first: GraphiQL is slow to see another name."""
    page.evaluate(
        "text => document.querySelector('.graphiql-query-editor .CodeMirror').CodeMirror.setValue(text)",
        operation,
    )
    page.locator(
        ".graphiql-execute-button:not([aria-haspopup])"
    ).click()  # once it has seen that there is nothing to choose from


def test_it_loads_from_here_alone_and_runs_a_query_and_a_subscription(window: Window) -> None:
    page, result = window.page, window.page.locator(".graphiql-response")

    run(page, "query Me { viewer { account { id } } }")
    expect(result).to_contain_text("acct_")
    asked = page.evaluate(
        """async () => (await fetch("/api/messages", {method: "POST", headers: {"Content-Type": "application/json"},
                         body: JSON.stringify({text: "/demo tokens=5 rate=0"})})).json()"""
    )
    run(page, FOLLOW % asked["generation_id"])
    expect(result).to_contain_text("GenerationCompleted")

    assert window.hosts <= {urlsplit(window.url).netloc, ""}
    refused = [
        fault for fault in window.faults if "401" not in fault
    ]  # of who asked for a session and had none yet
    assert refused == []


def test_it_can_be_switched_off_and_is_for_browsers_only(new_system: Callable[..., System]) -> None:
    system = new_system(graphql={"ide": False}).start()

    with httpx.Client(base_url=system.web.url, trust_env=False) as caller:
        answer = caller.get("/graphql", headers=HTML)

    assert answer.status_code >= 400
    assert "graphiql" not in answer.text


def test_it_has_a_policy_of_its_own_and_others_get_no_page(tidemark: System) -> None:
    with httpx.Client(base_url=tidemark.web.url, trust_env=False) as caller:
        page = caller.get("/graphql", headers=HTML)
        other = caller.get("/graphql", headers={"Accept": "application/json"})

    assert page.status_code == 200
    assert page.text == (FOLDER / "graphiql.html").read_text()
    assert "script-src 'self';" in page.headers["content-security-policy"]
    assert "html" not in other.headers["content-type"]


def test_the_chat_page_carries_nothing_of_it(tidemark: System) -> None:
    with httpx.Client(base_url=tidemark.web.url, trust_env=False) as caller:
        page = caller.get("/").text
        files = [
            caller.get(path).text for path in re.findall(r'(?:src|href)="(/assets/[^"]+)"', page)
        ]

    assert files
    assert not [
        text
        for text in [page, *files]
        if "graphiql" in text.lower() or "codemirror" in text.lower()
    ]
