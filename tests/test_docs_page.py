"""/api/docs: Swagger UI in a real browser, loaded from this server only."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, expect

from server.api.openapi import openapi
from server.errors import NotFound
from server.serve import pages
from tests.browser import Window
from tests.system import System

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")


@pytest.fixture(params=["light", "dark"])
def window(browser: Browser, tidemark: System, request: pytest.FixtureRequest) -> Iterator[Window]:
    """A window with the page, once it has loaded the document."""
    context = browser.new_context(color_scheme=request.param)
    window = Window(context, tidemark.web.url)
    window.page.goto(f"{tidemark.web.url}/api/docs")
    window.page.locator(".opblock").first.wait_for()
    yield window
    context.close()


@pytest.mark.slow
def test_it_shows_every_operation_and_loads_nothing_from_another_host(window: Window) -> None:
    operations = {
        (method.upper(), path)
        for path, methods in openapi()["paths"].items()
        for method in methods
        if method in METHODS
    }

    shown = window.page.locator(".opblock")
    expect(shown).to_have_count(len(operations))
    found = {
        (
            each.locator(".opblock-summary-method").inner_text(),
            each.locator(".opblock-summary-path").get_attribute("data-path"),
        )
        for each in shown.all()
    }
    window.page.locator(".opblock", has_text="/api/session").first.click()
    expect(window.page.locator(".opblock-body").first).to_be_visible()

    assert found == operations
    assert window.hosts <= {urlsplit(window.url).netloc, ""}
    assert window.faults == []


def test_it_has_a_strict_content_security_policy(tidemark: System) -> None:
    with httpx.Client(base_url=tidemark.web.url, trust_env=False) as caller:
        response = caller.get("/api/docs")

    assert response.status_code == 200
    assert "script-src 'self';" in response.headers["content-security-policy"]
    assert "unsafe" not in response.headers["content-security-policy"]


def test_without_the_built_page_the_error_names_the_build_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pages, "FOLDER", tmp_path)

    with pytest.raises(NotFound, match="npm run build"):
        pages.html_page("docs.html", "")
