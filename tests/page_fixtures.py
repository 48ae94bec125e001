"""Fixtures for tests of the page: a browser and an installation per file, a window per test. A file imports those it needs."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser import NewWindow, Window, open_browser, windows
from tests.system import System


@pytest.fixture(scope="module", name="browser")
def browser_fixture() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module", name="served")
def served_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """An installation with room for many guests from one address."""
    system = System(
        tmp_path_factory.mktemp("page"), {"auth": {"guest_sessions_max_per_hour_per_ip": 1000}}
    )
    try:
        yield system.start()
    finally:
        system.close()


@pytest.fixture(name="new_window")
def new_window_fixture(browser: Browser, served: System) -> Iterator[NewWindow]:
    """Opens windows, each of somebody new."""
    with windows(browser, served.web.url) as new:
        yield new


@pytest.fixture(name="window")
def window_fixture(new_window: NewWindow) -> Window:
    """A window somebody new has opened the page in."""
    return new_window().open()
