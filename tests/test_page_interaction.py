"""Using the page: branches, edits, drafts, the list, the keyboard, long chats, accessibility."""

import asyncio
import gzip
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect
from sqlmodel import Session

from server.history.database import open_database
from server.history.tables import Conversation, Generation, Message, Role, Status, now
from server.ids import Prefix, new_id
from server.serve.pages import FOLDER
from tests.browser import NewWindow, Window, require
from tests.system import System

SCRIPT_MAX_BYTES = 60_000
AXE = Path(__file__).parent.parent / "web" / "node_modules" / "axe-core" / "axe.min.js"
SERIOUS = ("serious", "critical")


def ask(window: Window, topic: str, tokens: int = 5) -> list[str]:
    window.send(f"/demo tokens={tokens} rate=0\n{topic}")
    window.wait_until_settled()
    return window.words()


def test_the_first_load_is_small() -> None:
    """The initial JavaScript is at most 60 KB, gzipped."""
    require((FOLDER / "index.html").is_file(), "the chat page is not built")
    wanted = re.findall(
        r'(?:src|href)="\./(assets/[^"]+\.js)"', (FOLDER / "index.html").read_text()
    )
    loaded: dict[str, bytes] = {}
    while wanted:
        name = wanted.pop()
        if name not in loaded:
            loaded[name] = (FOLDER / name).read_bytes()
            wanted += [
                f"assets/{each}"
                for each in re.findall(r'(?:from|import)\s*"\./([^"]+\.js)"', loaded[name].decode())
            ]

    total = sum(len(gzip.compress(script, 9)) for script in loaded.values())

    assert loaded
    assert total <= SCRIPT_MAX_BYTES, {
        name: len(gzip.compress(script, 9)) for name, script in loaded.items()
    }


@pytest.mark.slow
def test_an_edited_question_keeps_the_original_as_a_sibling(window: Window) -> None:
    first = ask(window, "one")

    window.page.locator(".question").hover()
    window.button("Edit").click()
    window.page.get_by_label("Question").fill("/demo tokens=7 rate=0\ntwo")
    window.button("Ask again").click()
    expect(window.page.locator(".question")).to_contain_text("two")
    expect(window.page.locator(".question")).to_contain_text("2/2")
    window.wait_until_settled()
    assert len(window.words()) == 7
    window.button("Previous question").click()

    expect(window.page.locator(".question")).to_contain_text("one")
    assert window.words() == first


@pytest.mark.slow
def test_a_tab_stays_on_the_branch_that_its_user_selected(
    window: Window, new_window: NewWindow
) -> None:
    first = ask(window, "branches")
    window.button("Regenerate").click()
    expect(window.answer).to_contain_text("2/2")
    window.wait_until_settled()
    other = new_window(beside=window).open(urlsplit(window.page.url).path)
    expect(other.answer).to_contain_text("2/2")

    window.button("Previous answer").click()
    expect(window.answer).to_contain_text("1/2")
    other.button("Next answer").wait_for()
    other.button("Regenerate").click()  # changes the shown branch
    expect(other.answer).to_contain_text("3/3")

    expect(window.answer).to_contain_text("1/3")
    assert window.words() == first
    second = ask(window, "goes on")
    assert second
    assert window.page.locator(".answer").count() == 2
    assert window.get(f"/api/messages/{window.stored()['parent_id']}")[
        "parent_id"
    ] == window.page.locator(".answer").first.get_attribute("data-message")


@pytest.mark.slow
def test_drafts_are_kept_per_conversation_and_survive_a_reload(window: Window) -> None:
    ask(window, "drafts")
    window.field.fill("not sent yet " * 3000)
    path = urlsplit(window.page.url).path
    window.page.get_by_role("link", name="New chat").click()
    expect(window.field).to_have_value("")
    window.field.fill("another")

    window.page.goto(window.url + path)
    expect(window.field).to_have_value("not sent yet " * 3000)
    window.page.goto(window.url)

    expect(window.field).to_have_value("another")


@pytest.mark.slow
def test_conversations_can_be_pinned_renamed_archived_and_deleted(
    window: Window, new_window: NewWindow
) -> None:
    for topic in ("alpha", "beta"):
        window.page.goto(window.url)
        ask(window, topic)
    other = new_window(beside=window).open()
    rows = window.page.locator(".side .row")
    expect(other.page.locator(".side .row")).to_have_count(2)

    def choose(row: int, label: str) -> None:
        rows.nth(row).hover()
        rows.nth(row).get_by_role("button").click()
        window.page.get_by_role("menuitem", name=label, exact=True).click()

    choose(1, "Pin")
    expect(rows.first).to_contain_text("alpha")
    choose(0, "Rename")
    window.page.get_by_label("Title").fill("The first one")
    window.page.keyboard.press("Enter")
    expect(other.page.locator(".side .row").first).to_contain_text("The first one")
    choose(0, "Rename")
    window.page.get_by_label("Title").fill("Discarded")
    window.page.keyboard.press("Escape")
    expect(rows.first).to_contain_text("The first one")
    assert window.faults == []
    expect(other.page.get_by_role("heading", name="Pinned")).to_be_visible()
    choose(1, "Archive")
    expect(other.page.locator(".side .row")).to_have_count(1)
    window.page.get_by_role("button", name="Undo").click()
    expect(other.page.locator(".side .row")).to_have_count(2)
    choose(1, "Delete")

    expect(other.page.locator(".side .row")).to_have_count(1)
    expect(window.page).to_have_url(f"{window.url}/")


def press_while_composing(window: Window, key: str) -> None:
    """Press a key as Safari reports it when it only confirms the text of an input method."""
    window.page.evaluate(
        """key => document.activeElement.dispatchEvent(
            new KeyboardEvent("keydown", { key, keyCode: 229, bubbles: true, cancelable: true }))""",
        key,
    )


def test_a_key_of_an_input_method_neither_sends_nor_stops(window: Window) -> None:
    field = window.page.locator("#message")
    field.fill("/demo tokens=1000 rate=20\nにほんご")
    press_while_composing(window, "Enter")
    expect(field).not_to_have_value("")
    expect(window.page.locator(".question")).to_have_count(0)

    window.page.keyboard.press("Enter")
    expect(window.button("Stop")).to_be_visible()
    press_while_composing(window, "Escape")
    before = len(window.words())
    window.page.wait_for_function(
        "before => document.querySelector('.answer').textContent.split(' ').length > before + 5",
        arg=before,
    )
    expect(window.button("Stop")).to_be_visible()


def test_a_file_that_is_dropped_does_not_replace_the_page(window: Window) -> None:
    taken = window.page.evaluate(
        """() => ["dragover", "drop"].map((type) =>
            !document.body.dispatchEvent(new DragEvent(type, { bubbles: true, cancelable: true })))"""
    )

    assert taken == [True, True]


@pytest.mark.slow
def test_everything_can_be_reached_by_keyboard(window: Window) -> None:
    keyboard, page = window.page.keyboard, window.page
    first = (ask(window, "keys one"), page.url)[1]
    page.locator("body").press("Escape")
    page.locator(".thread").focus()
    keyboard.press("n")
    expect(page).to_have_url(f"{window.url}/")
    ask(window, "keys two")
    keyboard.press("Alt+ArrowDown")
    expect(page).to_have_url(first)
    keyboard.press("Control+k")
    expect(page.get_by_label("Search conversations")).to_be_focused()
    keyboard.type("two")
    expect(page.locator(".results mark")).to_have_text("two")
    keyboard.press("Escape")
    page.locator(".thread").focus()
    keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Previous conversation")
    keyboard.press("Escape")
    page.locator(".thread").focus()
    keyboard.press("/")
    expect(window.field).to_be_focused()
    window.send("/demo tokens=2000 rate=40\nstop me")
    window.wait_for_words(3)
    keyboard.press("Escape")

    expect(window.answer).to_contain_text("Stopped.")


@pytest.mark.slow
def test_the_page_does_not_auto_scroll_while_the_user_has_scrolled_up(window: Window) -> None:
    window.send("/demo tokens=1500 rate=400\nscroll")
    window.wait_for_words(500)
    thread = window.page.locator(".thread")

    thread.hover()
    window.page.mouse.wheel(0, -600)
    expect(window.button("Scroll to bottom")).to_be_visible()
    position = thread.evaluate("element => element.scrollTop")
    window.wait_for_words(1000)

    assert thread.evaluate("element => element.scrollTop") == position
    window.button("Scroll to bottom").click()
    expect(window.button("Scroll to bottom")).to_have_count(0)
    window.wait_until_settled()
    assert (
        thread.evaluate(
            "element => element.scrollHeight - element.scrollTop - element.clientHeight"
        )
        < 48
    )

    thread.hover()
    window.page.mouse.wheel(0, -600)
    expect(window.button("Scroll to bottom")).to_be_visible()
    window.send("/demo tokens=3 rate=0\nwho sends goes to what was sent")
    expect(window.page.locator(".question").last).to_be_in_viewport()


def fill(served: System, account_id: str, turns: int) -> str:
    """Write a conversation with this many turns into the database; return its id."""

    def write(session: Session) -> str:
        conversation = Conversation(
            id=new_id(Prefix.CONVERSATION),
            account_id=account_id,
            title="Long",
            model="demo",
            title_due=False,
        )
        session.add(conversation)
        session.flush()
        parent = None
        for n in range(turns):
            question = Message(
                id=new_id(Prefix.MESSAGE),
                conversation_id=conversation.id,
                parent_id=parent,
                role=Role.USER,
            )
            question.parts = [{"type": "text", "text": f"question {n}"}]
            answer = Message(
                id=new_id(Prefix.MESSAGE),
                conversation_id=conversation.id,
                parent_id=question.id,
                role=Role.ASSISTANT,
            )
            generation = Generation(
                id=new_id(Prefix.GENERATION),
                account_id=account_id,
                conversation_id=conversation.id,
                question_id=question.id,
                message_id=answer.id,
                model="demo",
                status=Status.COMPLETED,
                seq=3,
                sealed=True,
                finished_at=now(),
                finish_reason="stop",
            )
            generation.parts = [{"type": "text", "text": f"answer **{n}**"}]
            answer.generation_id = generation.id
            session.add_all([question, answer, generation])
            parent = answer.id
        conversation.shown_message_id = parent
        return conversation.id

    async def run() -> str:
        async with open_database(served.settings.database_url) as database:
            return await database.write(write)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(run())).result()


@pytest.mark.slow
def test_older_messages_of_a_long_conversation_are_loaded_while_scrolling_up(
    served: System, window: Window
) -> None:
    conversation = fill(served, window.get("/api/session")["account"]["id"], 5000)
    fetched: list[str] = []
    window.page.on("request", lambda request: fetched.append(request.url))

    window.open(f"/c/{conversation}")
    expect(window.answer).to_contain_text("answer 4999")
    shown = window.page.locator(".answer").count()
    top = window.page.locator(".question").first
    window.page.locator(".thread").evaluate("element => element.scrollTo(0, 0)")
    expect(window.page.locator(".answer")).not_to_have_count(shown)

    assert shown <= 100
    assert top.inner_text()
    for _ in range(3):
        window.page.locator(".thread").evaluate("element => element.scrollTo(0, 0)")
    expect(
        window.page.locator(".question", has_text=re.compile(r"^question 4930\b"))
    ).to_have_count(1)


def violations_of(window: Window) -> list[Any]:
    """The serious violations that axe finds."""
    require(AXE.is_file(), "axe-core is not installed: run `npm ci` in web/")
    window.page.evaluate(AXE.read_text())
    found = window.page.evaluate("() => axe.run({ resultTypes: ['violations'] })")
    return [
        (each["id"], [node["html"][:200] for node in each["nodes"]])
        for each in found["violations"]
        if each["impact"] in SERIOUS
    ]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_violations(scheme: str, new_window: NewWindow) -> None:
    window = new_window(color_scheme=scheme, reduced_motion="reduce").open()
    assert violations_of(window) == []

    window.send("/demo rate=0\nWhat is the tide?\n")
    window.wait_until_settled()
    expect(window.text.locator(".katex")).to_have_count(1)
    expect(window.text.locator(".hljs-keyword").first).to_be_visible()
    assert violations_of(window) == []
    window.send("/demo tokens=9 rate=0 fail_after=4 reasoning=5\nfail")
    expect(window.button("Try again")).to_be_visible()
    assert violations_of(window) == []
    window.page.get_by_role("button", name="settings").click()
    expect(window.page.get_by_role("dialog")).to_be_visible()
    assert violations_of(window) == []


@pytest.mark.slow
def test_touch_targets_are_large_enough(new_window: NewWindow) -> None:
    phone = new_window(
        viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True
    ).open()
    phone.send("/demo rate=0\nWhat is the tide?")
    phone.wait_until_settled()
    phone.button("Conversations").click()
    expect(phone.page.get_by_role("link", name="New chat")).to_be_in_viewport()

    sizes = phone.page.locator(
        "button:visible, a:visible, select:visible, input:visible, summary:visible"
    ).evaluate_all(
        "all => all.filter(e => !e.closest('.prose p, .prose li')).map(e => "
        "[e.outerHTML.slice(0, 90), e.offsetWidth, e.offsetHeight])"
    )

    assert [each for each in sizes if min(each[1:]) < 44] == []


@pytest.mark.slow
def test_every_response_has_the_security_headers(window: Window) -> None:
    asset = window.page.locator("script[src]").first.get_attribute("src").removeprefix(".")

    for path in (
        "/",
        "/c/x",
        asset,
        "/api/session",
        "/api/nothing",
        "/nowhere",
        "/api/conversations",
    ):
        headers = window.page.request.get(f"{window.url}{path}").headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["content-security-policy"] == (
            "default-src 'none'; script-src 'self'; style-src 'self'; style-src-attr "
            "'unsafe-inline'; img-src 'self' data:; "
            "font-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri "
            "'self'; form-action 'self'"
        )
