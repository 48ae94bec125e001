"""A sign-in link asks for confirmation, because any site can open it in a visitor's browser."""

import json
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser import NewWindow, Window
from tests.system import System
from tests.test_page_interaction import violations_of

pytestmark = pytest.mark.slow

EMAIL = "mallory@example.org"
LINK = "/#token=a-token"


class Stub:
    """Answers one window's session requests itself; all others reach the server."""

    def __init__(self, page: Page, guest_conversations: int = 0) -> None:
        self.previewed: list[Any] = []
        self.signed_in: list[Any] = []
        self._guest_conversations = guest_conversations
        page.route("**/api/session/preview", self._preview)
        page.route("**/api/session", self._session)

    def _preview(self, route: Route) -> None:
        self.previewed.append(route.request.post_data_json)
        route.fulfill(json={"email": EMAIL, "guest_conversations": self._guest_conversations})

    def _session(self, route: Route) -> None:
        body = json.loads(route.request.post_data or "{}")
        if "token" in body:
            self.signed_in.append(body)
            route.fulfill(status=201, json={"account": {"id": "x"}, "user": None, "guest": False})
        else:
            route.continue_()


def question(page: Page) -> Locator:
    return page.get_by_role("dialog", name=f"Sign in as {EMAIL}?")


def reach_link(window: Window, path: str = LINK) -> None:
    """Open a link in a new document, as a click on another site does."""
    window.page.goto("about:blank")
    window.page.goto(window.url + path)


def test_a_link_does_not_sign_in_before_the_button_is_pressed(new_window: NewWindow) -> None:
    window = new_window()
    stub = Stub(window.page)

    reach_link(window)
    expect(question(window.page)).to_be_visible()
    before_the_click, address = list(stub.signed_in), window.page.url
    window.button("Sign in").click()
    expect(window.field).to_be_visible()

    assert before_the_click == []
    assert "token" not in address
    assert stub.previewed == [{"token": "a-token"}]
    assert stub.signed_in == [{"token": "a-token", "bring_conversations": False}]
    assert window.faults == []


@pytest.mark.parametrize("leave", ["Cancel", "Escape"])
def test_cancelling_keeps_the_current_session(window: Window, leave: str) -> None:
    window.send("/demo tokens=3 rate=0\nmine")
    window.wait_until_settled()
    before = window.get("/api/session")
    stub = Stub(window.page, guest_conversations=1)

    reach_link(window)
    expect(question(window.page)).to_be_visible()
    if leave == "Cancel":
        window.button("Cancel").click()
    else:
        window.page.keyboard.press("Escape")

    expect(window.field).to_be_visible()
    expect(window.page.locator(".side .row")).to_contain_text("mine")
    assert stub.signed_in == []
    assert window.get("/api/session") == before


def test_conversations_are_moved_only_if_the_box_is_checked(window: Window) -> None:
    stub = Stub(window.page, guest_conversations=3)

    reach_link(window)
    box = window.page.get_by_label("Bring along 3 conversations of this browser")
    expect(box).not_to_be_checked()
    box.check()
    window.button("Sign in").click()
    expect(window.field).to_be_visible()

    assert stub.signed_in == [{"token": "a-token", "bring_conversations": True}]


def test_enter_does_not_sign_in_before_a_button_has_the_focus(new_window: NewWindow) -> None:
    window = new_window()
    stub = Stub(window.page)

    reach_link(window)
    expect(window.page.get_by_role("heading", name=f"Sign in as {EMAIL}?")).to_be_focused()
    window.page.keyboard.press("Enter")
    window.page.keyboard.press("Tab")
    expect(window.button("Sign in")).to_be_focused()
    not_yet = list(stub.signed_in)
    window.page.keyboard.press("Enter")
    expect(window.field).to_be_visible()

    assert not_yet == []
    assert len(stub.signed_in) == 1


def test_a_token_in_the_query_string_is_ignored(new_window: NewWindow) -> None:
    window = new_window()
    stub = Stub(window.page)

    window.open("/?token=a-token")

    assert stub.previewed == []
    assert stub.signed_in == []


def test_a_used_link_shows_a_notice_and_keeps_the_current_session(new_window: NewWindow) -> None:
    window = new_window()
    window.page.route(
        "**/api/session/preview",
        lambda route: route.fulfill(
            status=401,
            content_type="application/problem+json",
            body=json.dumps({"status": 401, "code": "unauthenticated", "detail": "Link used."}),
        ),
    )

    reach_link(window)

    expect(window.field).to_be_visible()
    expect(window.page.get_by_text("Link used.")).to_be_visible()
    expect(window.page.get_by_role("dialog")).to_have_count(0)


def test_a_link_pasted_into_an_open_page_asks_for_confirmation_as_well(window: Window) -> None:
    stub = Stub(window.page)

    window.page.evaluate("location.hash = 'token=a-token'")

    expect(question(window.page)).to_be_visible()
    assert stub.previewed == [{"token": "a-token"}]
    assert stub.signed_in == []


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_confirmation_is_accessible(new_window: NewWindow, width: int, scheme: str) -> None:
    window = new_window(viewport={"width": width, "height": 800}, color_scheme=scheme)
    Stub(window.page, guest_conversations=3)

    reach_link(window)
    expect(question(window.page)).to_be_visible()

    assert violations_of(window) == []
    box = question(window.page).bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width


def test_a_real_link_shows_its_account_and_moves_conversations(
    window: Window, served: System
) -> None:
    window.send("/demo tokens=3 rate=0\nbrought along")
    window.wait_until_settled()

    served.run("user", "create", EMAIL)
    token = served.run("user", "link", EMAIL).strip().partition("#token=")[2]

    reach_link(window, f"/#token={token}")
    window.page.get_by_label("Bring along 1 conversation of this browser").check()
    window.button("Sign in").click()

    expect(window.page.locator(".side .row")).to_contain_text("brought along")
    assert window.get("/api/session")["user"]["email"] == EMAIL
