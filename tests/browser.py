"""The chat page in a real browser, and a web process that can restart at the same address."""

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
    """Start Chromium with a temporary profile.

    Without a browser or the built page, the test is skipped; in CI it fails.
    """
    require(
        (FOLDER / "index.html").is_file(),
        "the chat page is not built: run `npm ci && npm run build` in web/",
    )
    expect.set_options(timeout=WAIT_S * 1000)
    with sync_playwright() as playwright:
        bundled = playwright.chromium.executable_path
        executable = next(
            filter(None, map(shutil.which, NAMES)), bundled if Path(bundled).is_file() else None
        )
        require(
            executable is not None, f"there is no browser: none of {', '.join(NAMES)} is installed"
        )
        browser = playwright.chromium.launch(executable_path=executable, args=SWITCHES)
        try:
            yield browser
        finally:
            browser.close()


def require(available: bool, message: str) -> None:
    if available:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


class LastingAddress:
    """A listening socket held by the test, so that successive web processes share one address."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._listening: socket.socket = listen("127.0.0.1", 0)
        self.url = address_of(self._listening)

    def start_web(self) -> Process:
        """Start the next web process and wait until it is ready.

        Clients that connect while no process runs wait in the socket's backlog.
        """
        web = self._system._spawn("web", ["web"], self.url, self._listening)
        self._system.wait_ready(web)
        return web

    def close(self) -> None:
        self._listening.close()


class Window:
    """One browser window with the page, and a record of its errors and requests."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.page: Page = context.new_page()
        self.url = url
        self.faults: list[str] = []
        self.hosts: set[str] = set()
        self.sent: list[str] = []
        """The Idempotency-Key of every request that had one, repeated for each attempt."""
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
        """The text of the last answer."""
        return self.answer.locator(".prose")

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def send(self, text: str) -> None:
        """Send a message and wait until its answer is on the page."""
        answers = self.page.locator(".answer").count()
        self.field.fill(text)
        self.button("Send").click()  # on a phone, Enter begins a new line
        expect(self.page.locator(".answer")).to_have_count(answers + 1)

    def words(self) -> list[str]:
        return self.text.inner_text().split() if self.text.count() else []

    def wait_for_words(self, count: int) -> list[str]:
        """Wait until the answer has this many words, and return them."""
        words: list[str] = []

        def enough() -> bool:
            words[:] = self.words()
            return len(words) >= count

        until(enough, f"{count} words on the page")
        return words

    def wait_until_settled(self) -> None:
        expect(self.answer).to_have_attribute("aria-busy", "false")

    def watch_until_settled(self) -> list[str]:
        """Poll the answer's text until it completes, is stopped or fails; return all texts seen."""
        sightings: list[str] = []

        def settled() -> bool:
            sightings.append(" ".join(self.words()))
            return self.answer.get_attribute("aria-busy") == "false"

        until(settled, "the end of the answer")
        return sightings

    def get(self, path: str) -> Any:
        """The JSON response to a GET with this window's session."""
        response = self.page.request.get(self.url + path)
        assert response.ok, response.text()
        return response.json()

    def stored(self) -> Any:
        """The last message of the open conversation, as the server stores it."""
        conversation = urlsplit(self.page.url).path.removeprefix("/c/")
        last = self.get(f"/api/conversations/{conversation}/messages")["data"][-1]
        return self.get(f"/api/messages/{last['id']}")

    def is_too_wide(self) -> bool:
        """Whether the page or the conversation can be scrolled sideways."""
        script = """() => [document.documentElement, document.querySelector('.thread')]
            .some(e => e.scrollWidth > e.clientWidth)"""
        return bool(self.page.evaluate(script))


NewWindow = Callable[..., Window]


@contextmanager
def windows(browser: Browser, url: str) -> Iterator[NewWindow]:
    """Open windows: each for a new person, or with `beside` for the person of another window."""
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


@contextmanager
def lasting_window(browser: Browser, system: System) -> Iterator[tuple[Window, LastingAddress]]:
    """Start a system and open its page at an address that outlives its web process."""
    system.start(webs=0)
    address = LastingAddress(system)
    address.start_web()
    try:
        with windows(browser, address.url) as new:
            yield new().open(), address
    finally:
        address.close()
