"""The chat page in a real browser, and a web process that can be killed and come back at the same address."""

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Locator,
    Page,
    Request,
    expect,
    sync_playwright,
)

from server.serve.listening import address_of, listen
from server.serve.pages import FOLDER
from tests.system import Process, System
from tests.waiting import WAIT_S, until

SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NAMES = ["chromium", "chromium-browser", "google-chrome"]


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Chromium with a profile of its own. Without it, or without the built page, tests are skipped; in CI they fail."""
    _demand(
        (FOLDER / "index.html").is_file(),
        "the chat page is not built: run `npm ci && npm run build` in web/",
    )
    expect.set_options(timeout=WAIT_S * 1000)
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        found = next(filter(None, map(shutil.which, NAMES)), own if Path(own).is_file() else None)
        _demand(found is not None, f"there is no browser: none of {', '.join(NAMES)} is installed")
        browser = playwright.chromium.launch(executable_path=found, args=SWITCHES)
        try:
            yield browser
        finally:
            browser.close()


def _demand(there: bool, otherwise: str) -> None:
    if there:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(otherwise)
    pytest.skip(otherwise)


class LastingAddress:
    """A listening socket the test keeps, so that one web process after another serves the same address."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._listening: socket.socket = listen("127.0.0.1", 0)
        self.url = address_of(self._listening)

    def start_web(self) -> Process:
        """The next web process, ready. Whoever connects while there is none waits for it."""
        web = self._system._spawn("web", ["web"], self.url, self._listening)
        self._system.wait_ready(web)
        return web

    def close(self) -> None:
        self._listening.close()


class Window:
    """One window with the page in it, and what went on there."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.page: Page = context.new_page()
        self.url = url
        self.faults: list[str] = []
        self.hosts: set[str] = set()
        self.sent: list[str] = []
        """The Idempotency-Keys of what was asked, a try each."""
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", self._on_dialog)
        self.page.on("request", self._on_request)
        self.page.on("websocket", lambda opened: self.hosts.add(urlsplit(opened.url).netloc))

    def _on_request(self, request: Request) -> None:
        self.hosts.add(urlsplit(request.url).netloc)
        if key := request.headers.get("idempotency-key"):
            self.sent.append(key)

    def _on_dialog(self, dialog: Dialog) -> None:
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(message.text)

    def open(self, path: str = "/") -> "Window":
        self.page.goto(self.url + path)
        expect(self.field).to_be_visible()
        return self

    @property
    def field(self) -> Locator:
        return self.page.get_by_label("Message", exact=True)

    @property
    def answer(self) -> Locator:
        """The last answer."""
        return self.page.locator(".answer").last

    @property
    def text(self) -> Locator:
        """What the last answer says."""
        return self.answer.locator(".prose")

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def send(self, text: str) -> None:
        """Sends a message and waits until its answer is on the page."""
        answers = self.page.locator(".answer").count()
        self.field.fill(text)
        self.button("Send").click()  # on a phone, Enter begins a new line
        expect(self.page.locator(".answer")).to_have_count(answers + 1)

    def words(self) -> list[str]:
        return self.text.inner_text().split() if self.text.count() else []

    def wait_for_words(self, count: int) -> list[str]:
        """What the answer says as soon as it has said so many words."""
        words: list[str] = []

        def enough() -> bool:
            words[:] = self.words()
            return len(words) >= count

        until(enough, f"{count} words on the page")
        return words

    def wait_until_settled(self) -> None:
        expect(self.answer).to_have_attribute("aria-busy", "false")

    def watch_until_settled(self) -> list[str]:
        """What the answer said at each look, until it was complete, stopped or failed."""
        sightings: list[str] = []

        def settled() -> bool:
            sightings.append(" ".join(self.words()))
            return self.answer.get_attribute("aria-busy") == "false"

        until(settled, "the end of the answer")
        return sightings

    def get(self, path: str) -> Any:
        """What the server tells this window's session."""
        response = self.page.request.get(self.url + path)
        assert response.ok, response.text()
        return response.json()

    def stored(self) -> Any:
        """The last message of the open conversation, as the server has it."""
        conversation = urlsplit(self.page.url).path.removeprefix("/c/")
        last = self.get(f"/api/conversations/{conversation}/messages")["data"][-1]
        return self.get(f"/api/messages/{last['id']}")

    def is_too_wide(self) -> bool:
        """Whether the page or the conversation can be scrolled sideways."""
        script = "() => [document.documentElement, document.querySelector('.thread')].some(e => e.scrollWidth > e.clientWidth)"
        return bool(self.page.evaluate(script))


NewWindow = Callable[..., Window]


@contextmanager
def windows(browser: Browser, url: str) -> Iterator[NewWindow]:
    """Opens windows: each of a person of its own, unless it is told `beside` which other one."""
    contexts: list[BrowserContext] = []

    def new(*, beside: Window | None = None, **context: Any) -> Window:
        if beside is not None:
            return Window(beside.page.context, url)
        contexts.append(browser.new_context(**context))
        return Window(contexts[-1], url)

    try:
        yield new
    finally:
        for context in contexts:
            context.close()
