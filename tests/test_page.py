"""The chat page in a real browser."""

from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, expect

from tests.browser import NewWindow, Window, lasting_window
from tests.system import System

# Short enough for the built-in model to repeat it completely.
HOSTILE = "<img src=x onerror=alert(1)> [x](javascript:alert(1)) ![y](//a.example/y.png)"


def check_complete(window: Window, tokens: int) -> None:
    """Check that the page only ever shows a prefix of the stored answer and finally all of it."""
    sightings = window.watch_until_settled()
    stored = window.stored()
    assert stored["status"] == "completed"
    assert len(stored["text"].split(" ")) == tokens
    for seen in sightings:
        assert stored["text"].startswith(seen)
    assert window.words() == stored["text"].split(" ")


def test_a_guest_can_start_at_once_and_nothing_is_loaded_from_other_hosts(window: Window) -> None:
    window.send("/demo rate=0\nWhat is the tide?")
    window.wait_until_settled()

    expect(window.text.locator("table, pre, ol")).to_have_count(3)
    expect(window.text.locator(".katex")).to_have_count(1)
    assert window.get("/api/session")["guest"] is True
    assert window.hosts == {urlsplit(window.url).netloc}
    assert window.faults == []


def test_an_answer_appears_while_it_is_streamed(window: Window) -> None:
    window.send("/demo tokens=80 rate=40\ngrow")

    early = window.wait_for_words(3)
    expect(window.answer).to_have_attribute("aria-busy", "true")
    later = window.wait_for_words(len(early) + 3)

    assert len(later) < 80
    assert later[: len(early) - 1] == early[:-1]  # the last word may have been incomplete
    check_complete(window, 80)
    assert window.faults == []


def test_after_a_reload_the_answer_continues_and_is_complete(window: Window) -> None:
    window.send("/demo tokens=80 rate=40\nreload")
    before = window.wait_for_words(10)

    window.page.reload()

    assert window.wait_for_words(len(before) - 1)[: len(before) - 1] == before[:-1]
    expect(window.button("Stop")).to_be_visible()
    check_complete(window, 80)
    assert window.faults == []


def test_two_windows_show_the_same_answer_as_it_grows(
    window: Window, new_window: NewWindow
) -> None:
    window.send("/demo tokens=80 rate=40\ntwo windows")
    window.wait_for_words(10)

    other = new_window(beside=window).open(urlsplit(window.page.url).path)

    other.wait_for_words(15)
    expect(other.button("Stop")).to_be_visible()
    check_complete(window, 80)
    check_complete(other, 80)


def test_stopping_keeps_the_text_so_far(window: Window) -> None:
    window.send("/demo tokens=2000 rate=40\nstop")
    seen = window.wait_for_words(10)

    window.button("Stop").click()

    expect(window.answer).to_contain_text("Stopped.")
    stored = window.stored()
    assert stored["status"] == "cancelled"
    assert window.words() == stored["text"].split()
    assert window.words()[: len(seen) - 1] == seen[:-1]
    window.page.reload()
    expect(window.text).to_have_text(stored["text"].strip())


@pytest.mark.slow
def test_the_page_reconnects_after_the_web_process_was_killed(
    browser: Browser, new_system: Callable[..., System]
) -> None:
    system = new_system()
    with lasting_window(browser, system) as (window, address):
        window.send("/demo tokens=200 rate=40\nkill the web")
        window.wait_for_words(10)

        system.web.kill()
        expect(window.answer).to_contain_text("Connection lost")
        address.start_web()

        check_complete(window, 200)
        expect(window.answer).not_to_contain_text("Connection lost")


def test_a_failed_answer_shows_its_error_and_can_be_retried(window: Window) -> None:
    window.send("/demo tokens=9 rate=0 fail_after=4\nfail")

    expect(window.answer).to_contain_text("The demo model fails after 4 tokens")
    expect(window.answer).to_contain_text("provider_unavailable")
    failed = window.stored()
    window.button("Try again").click()

    expect(window.button("Try again")).to_be_enabled()  # it fails again
    again = window.stored()
    assert again["id"] == failed["id"]
    assert again["generation_id"] != failed["generation_id"]


def test_a_regenerated_answer_can_be_compared_with_the_first(window: Window) -> None:
    window.send("/demo tokens=5 rate=0\nWhat is the tide?")
    window.wait_until_settled()
    first = window.words()

    window.button("Regenerate").click()
    window.wait_until_settled()
    expect(window.answer).to_contain_text("2/2")
    assert window.words() != first
    window.button("Previous answer").click()

    expect(window.answer).to_contain_text("1/2")
    assert window.words() == first


def test_back_and_forward_switch_between_conversations(window: Window) -> None:
    window.send("/demo tokens=120 rate=40\nfirst")
    window.wait_for_words(5)
    first = window.page.url
    window.page.get_by_role("link", name="New chat").click()
    window.send("/demo tokens=5 rate=0\nsecond")
    window.wait_until_settled()
    second = window.page.url

    window.page.go_back()
    window.page.go_back()
    expect(window.page).to_have_url(first)
    expect(window.page.locator(".question")).to_contain_text("first")
    window.page.go_forward()
    window.page.go_forward()
    expect(window.page).to_have_url(second)
    expect(window.page.locator(".question")).to_contain_text("second")
    check_complete(window, 5)
    window.page.goto(first)

    check_complete(window, 120)
    assert window.faults == []


def test_hostile_text_is_shown_and_never_executed(window: Window) -> None:
    window.send(f"/demo rate=0\n{HOSTILE}")  # the built-in model repeats it
    window.wait_until_settled()

    assert HOSTILE in window.stored()["text"]
    expect(window.page.locator(".question")).to_contain_text(HOSTILE)
    expect(window.text).to_contain_text("<img src=x onerror=alert(1)>")
    assert (
        window.page.locator(
            "#page img, #page script, #page iframe, #page [onerror], a[href^='javascript']"
        ).count()
        == 0
    )
    assert window.hosts == {urlsplit(window.url).netloc}
    assert window.faults == []


def test_formulas_are_typeset_and_prices_are_not(window: Window) -> None:
    window.send("/demo rate=0\n$5 or $10 or \\(a_1 b_2\\)")
    window.wait_until_settled()

    expect(window.text.locator(".katex annotation", has_text=r"\int_0^T h(t)\,dt")).to_have_count(1)
    expect(window.text.locator(".katex annotation", has_text="a_1 b_2")).to_have_count(1)
    expect(window.text).to_contain_text("$5 or $10 or")


def test_a_range_is_not_struck_through(window: Window) -> None:
    window.send("/demo rate=0\n€80~120 or €90~130, not ~~100~~")
    window.wait_until_settled()

    expect(window.text).to_contain_text("€80~120 or €90~130, not 100")
    assert window.text.locator("del").all_inner_texts().count("100") == 1


def test_a_sign_in_link_signs_in_and_its_token_leaves_the_address_bar(
    served: System, new_window: NewWindow
) -> None:
    served.run("user", "create", "ada@example.org")
    link = served.run("user", "link", "ada@example.org").split()[-1]

    window = new_window()
    window.page.goto(f"{window.url}/#{urlsplit(link).fragment}")
    window.button("Sign in").click()

    expect(window.field).to_be_visible()
    expect(window.page).to_have_url(f"{window.url}/")
    assert window.get("/api/session")["user"]["email"] == "ada@example.org"
    assert "token" not in window.page.evaluate("() => location.href")


@pytest.mark.slow
def test_signing_in_keeps_the_conversation_in_every_tab(
    served: System, window: Window, new_window: NewWindow
) -> None:
    window.send("/demo tokens=3 rate=0\nkeep me")
    window.wait_until_settled()
    other = new_window(beside=window).open(urlsplit(window.page.url).path)
    served.run("user", "create", "eve@example.org")
    link = served.run("user", "link", "eve@example.org").split()[-1]

    window.page.goto(f"{window.url}/#{urlsplit(link).fragment}")
    window.page.get_by_label("Bring along 1 conversation of this browser").check()
    window.button("Sign in").click()

    for tab in (window, other):
        expect(tab.page.locator(".side-foot")).to_contain_text("eve@example.org")
        expect(tab.page.locator(".side .row")).to_contain_text("keep me")
    expect(other.page.locator(".question")).to_contain_text("keep me")
    other.send("/demo tokens=4 rate=0\nand on")
    other.wait_until_settled()
    assert len(other.words()) == 4


def test_a_used_link_shows_a_notice(served: System, new_window: NewWindow) -> None:
    served.run("user", "create", "bob@example.org")
    fragment = urlsplit(served.run("user", "link", "bob@example.org").split()[-1]).fragment
    first = new_window()
    first.page.goto(f"{first.url}/#{fragment}")
    first.button("Sign in").click()
    expect(first.field).to_be_visible()

    second = new_window().open(f"/#{fragment}")

    expect(second.page.locator(".notice")).to_contain_text("already been used")
    assert second.get("/api/session")["guest"] is True


def test_nothing_is_wider_than_the_screen_of_a_phone(new_window: NewWindow) -> None:
    phone = new_window(
        viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True
    ).open()
    phone.field.fill("/demo rate=0\n" + "w" * 200)
    phone.button("Send").click()
    expect(phone.button("Regenerate")).to_be_visible()

    assert not phone.is_too_wide()
    phone.button("Conversations").click()
    expect(phone.page.get_by_role("link", name="New chat")).to_be_in_viewport()
    assert not phone.is_too_wide()


def test_an_unknown_conversation_opens_a_new_one(window: Window) -> None:
    window.page.goto(f"{window.url}/c/conv_00000000000000000000000000")

    expect(window.page.locator(".notice")).to_contain_text("does not exist")
    expect(window.page).to_have_url(f"{window.url}/")
    expect(window.field).to_be_visible()
