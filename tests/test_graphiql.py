"""GraphiQL in a real browser: it loads from this server only and uses the visitor's session."""

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

FOLLOW = (
    'subscription Me { generationEvents(id: "%s") {'
    " __typename cursor ... on GenerationCompleted { finishReason } } }"
)
HTML = {"Accept": "text/html,application/xhtml+xml"}


@pytest.fixture
def window(browser: Browser, tidemark: System) -> Iterator[Window]:
    """A window of a new visitor with GraphiQL loaded."""
    context = browser.new_context()
    window = Window(context, tidemark.web.url)
    window.page.goto(f"{tidemark.web.url}/graphql")
    window.page.locator(".graphiql-query-editor .CodeMirror").wait_for()
    yield window
    context.close()


def run(page: Page, operation: str) -> None:
    """Run an operation named Me.

    The initial operation has this name, and GraphiQL is slow to notice another one.
    """
    page.evaluate(
        "text => document.querySelector('.graphiql-query-editor .CodeMirror')"
        ".CodeMirror.setValue(text)",
        operation,
    )
    # The attribute disappears once GraphiQL knows that there is only one operation.
    page.locator(".graphiql-execute-button:not([aria-haspopup])").click()


def test_it_loads_from_this_server_only_and_runs_a_query_and_a_subscription(window: Window) -> None:
    page, result = window.page, window.page.locator(".graphiql-response")

    run(page, "query Me { viewer { account { id } } }")
    expect(result).to_contain_text("acct_")
    sent = page.evaluate(
        """async () => (await fetch("/api/messages", {
            method: "POST",
            headers: {"Content-Type": "application/json"},
            body: JSON.stringify({text: "/demo tokens=5 rate=0"}),
        })).json()"""
    )
    run(page, FOLLOW % sent["generation_id"])
    expect(result).to_contain_text("GenerationCompleted")

    assert window.hosts <= {urlsplit(window.url).netloc, ""}
    # The page first asks for a session, which does not exist yet.
    faults = [fault for fault in window.faults if "401" not in fault]
    assert faults == []


def test_it_can_be_disabled(new_system: Callable[..., System]) -> None:
    system = new_system(graphql={"ide": False}).start()

    with httpx.Client(base_url=system.web.url, trust_env=False) as caller:
        response = caller.get("/graphql", headers=HTML)

    assert response.status_code >= 400
    assert "graphiql" not in response.text


def test_it_has_its_own_policy_and_is_only_served_to_browsers(tidemark: System) -> None:
    with httpx.Client(base_url=tidemark.web.url, trust_env=False) as caller:
        page = caller.get("/graphql", headers=HTML)
        other = caller.get("/graphql", headers={"Accept": "application/json"})

    assert page.status_code == 200
    built = (FOLDER / "graphiql.html").read_text()
    assert page.text == built.replace("<head>", '<head>\n    <base href="/" />')
    assert "script-src 'self';" in page.headers["content-security-policy"]
    assert "html" not in other.headers["content-type"]


def test_the_chat_page_does_not_include_it(tidemark: System) -> None:
    with httpx.Client(base_url=tidemark.web.url, trust_env=False) as caller:
        page = caller.get("/").text
        files = [
            caller.get(path).text for path in re.findall(r'(?:src|href)="\.(/assets/[^"]+)"', page)
        ]

    assert files
    assert not [
        text
        for text in [page, *files]
        if "graphiql" in text.lower() or "codemirror" in text.lower()
    ]
