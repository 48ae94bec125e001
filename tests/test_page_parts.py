"""Parts of the page: reasoning, tools, usage, truncated answers, prompts, settings, long lists."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from playwright.sync_api import expect
from sqlmodel import Session

from server.history.database import open_database
from server.history.tables import Conversation, now
from server.ids import Prefix, new_id
from tests.browser import Window
from tests.system import System
from tests.waiting import until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """An installation whose answers end after 40 tokens."""
    settings = {
        "auth": {"guest_sessions_max_per_hour_per_ip": 1000},
        "generation": {"output_max_tokens": 40, "demo": True, "default_model": "demo"},
        "providers": {"gone": {"base_url": "http://127.0.0.1:9/v1", "models": ["nobody"]}},
    }
    system = System(tmp_path_factory.mktemp("parts"), settings)
    try:
        yield system.start()
    finally:
        system.close()


def test_reasoning_is_collapsed_and_tools_and_usage_are_shown_on_demand(window: Window) -> None:
    window.send("/demo tokens=5 rate=0 reasoning=4 tool=1\nparts")
    window.wait_until_settled()

    expect(window.answer.get_by_text("tide water mark shore")).to_have_count(0)
    window.answer.get_by_text("Reasoning").click()
    expect(window.answer.get_by_text("tide water mark shore")).to_be_visible()
    window.answer.get_by_text("Calls the tool look_up_tide").click()
    expect(window.answer).to_contain_text("Dover")
    window.button("About this answer").click()
    expect(window.answer.locator(".about")).to_contain_text("demo · ")
    expect(window.answer.locator(".about")).to_contain_text("tokens in")


def test_a_truncated_answer_can_be_continued(window: Window) -> None:
    window.send("/demo tokens=60 rate=0\nlong")
    expect(window.answer).to_contain_text("reached its length limit")
    assert len(window.words()) == 40

    window.button("Continue").click()

    expect(window.button("Continue")).to_have_count(0)
    window.wait_until_settled()
    assert window.words() == window.stored()["text"].split(" ")
    assert len(window.words()) == 60
    expect(window.page.locator(".answer")).to_have_count(1)


def test_an_answer_whose_continuation_fails_is_still_shown_with_the_error(window: Window) -> None:
    window.send("/demo tokens=60 rate=0\nlong")
    expect(window.answer).to_contain_text("reached its length limit")
    before = window.words()
    window.page.route(
        "**/continue", lambda route: route.continue_(post_data='{"model": "gone/nobody"}')
    )

    window.button("Continue").click()

    expect(window.answer.locator(".failure")).to_contain_text(
        "Continuing the answer failed.", timeout=30_000
    )
    expect(window.button("Continue")).to_be_enabled()
    assert window.words() == before == window.stored()["text"].split(" ")


def test_a_system_prompt_set_in_a_new_conversation_is_sent_with_it(window: Window) -> None:
    def open_prompt() -> None:
        window.button("Options").click()
        window.page.get_by_role("menuitem", name="System prompt").click()

    open_prompt()
    window.page.get_by_role("dialog").get_by_role("textbox").fill("Be brief.")
    window.button("Save").click()
    window.send("/demo tokens=3 rate=0\nprompted")
    window.wait_until_settled()
    conversation = f"/api/conversations/{window.stored()['conversation_id']}"
    assert window.get(conversation)["system_prompt"] == "Be brief."

    open_prompt()
    expect(window.page.get_by_role("dialog").get_by_role("textbox")).to_have_value("Be brief.")
    window.page.get_by_role("dialog").get_by_role("textbox").fill("")
    window.button("Save").click()

    expect(window.page.get_by_role("dialog")).to_have_count(0)
    window.page.wait_for_function(
        f"() => fetch('{conversation}').then(r => r.json()).then(c => c.system_prompt === null)"
    )


def test_settings_are_kept_in_this_browser(window: Window) -> None:
    def background() -> str:
        return str(
            window.page.evaluate("() => getComputedStyle(document.documentElement).backgroundColor")
        )

    light = background()
    window.page.get_by_role("button", name="settings").click()
    window.page.get_by_label("dark").check()
    window.page.get_by_label("large").check()
    window.page.get_by_label("Enter sends").uncheck()
    window.button("Close").click()
    window.page.reload()
    expect(window.field).to_be_visible()

    assert background() != light
    assert (
        window.page.evaluate("() => getComputedStyle(document.documentElement).fontSize") == "18px"
    )
    window.field.fill("one")
    window.field.press("Enter")
    expect(window.field).to_have_value("one\n")
    window.field.press("Control+Enter")
    expect(window.page.locator(".question")).to_contain_text("one")


def test_a_long_list_is_loaded_while_scrolling(served: System, window: Window) -> None:
    account_id = window.get("/api/session")["account"]["id"]

    def write(session: Session) -> None:
        for n in range(130):
            at = now() - timedelta(hours=7 * n)
            session.add(
                Conversation(
                    id=new_id(Prefix.CONVERSATION),
                    account_id=account_id,
                    title=f"number {n}",
                    model="demo",
                    updated_at=at,
                )
            )

    async def run() -> None:
        async with open_database(served.settings.database_url) as database:
            await database.write(write)

    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(run())).result()
    window.page.reload()
    rows = window.page.locator(".side .row")

    expect(rows.first).to_contain_text("number 0")
    assert rows.count() < 130

    def scroll_on() -> bool:
        window.page.locator(".side .list").evaluate(
            "element => element.scrollTo(0, element.scrollHeight)"
        )
        return rows.count() == 130

    until(scroll_on, "the whole list")
    expect(window.page.get_by_role("link", name="number 129", exact=True)).to_have_count(1)
    expect(window.page.get_by_role("heading", name="Yesterday")).to_have_count(1)
