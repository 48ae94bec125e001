"""Text on the page: scripts from right to left, deep nesting, late definitions, translation."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import NewWindow, Window, windows
from tests.scripted_provider import MODEL, ScriptedProvider
from tests.system import System

pytestmark = pytest.mark.slow

HEBREW, ARABIC = "שלום עולם", "مرحبا بالعالم"
MIXED = f"""Plain English first.

{HEBREW} and then English.

# {ARABIC}

- English item
- {HEBREW}

1. {ARABIC}
2. English

> {ARABIC}

| {HEBREW} | English |
|---|---|
| English | {HEBREW} |

`let x = 1` {HEBREW}

```python
def tide(h):
    return h
```

{ARABIC} $x^2 + y = 3$
"""

TRANSLATE = """() => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walker.nextNode()) texts.push(walker.currentNode);
  for (const text of texts) {
    if (!text.data.trim() || text.parentElement.closest('[translate=no], script, style, textarea'))
      continue;
    const font = document.createElement('font');
    font.textContent = text.data.toUpperCase();
    text.replaceWith(font);
  }
}"""


DEEP = {
    "quotes": ">" * 5000 + " deep",
    "spaced quotes": "> " * 8000 + "deep",
    "lists in a line": "- " * 3000 + "deep",
    "an indented list": "\n".join(f"{'  ' * n}- level {n}" for n in range(300)) + "\ndeep",
}
CITING = (
    "\n\n".join(f"Paragraph {n} cites [{n}] here." for n in range(1, 40))
    + "\n\n"
    + "\n".join(f"[{n}]: https://example.org/{n}" for n in range(1, 40))
    + "\n"
)
ANSWERS = DEEP | {
    "mixed": MIXED,
    "citing": CITING,
    "code": "words `code` and $x$\n\n```js\nlet y\n```\n",
    "precious": "precious",
}
PIECE_CHARS = 9


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an installation whose model sends these answers."""
    with ScriptedProvider() as scripted:
        for name, text in ANSWERS.items():
            size = PIECE_CHARS if len(text) < 5000 else 997
            scripted.texts[name] = [text[at : at + size] for at in range(0, len(text), size)]
        scripted.rates["citing"] = 100
        settings = {
            "auth": {"guest_sessions_max_per_hour_per_ip": 1000},
            "providers": {"scripted": scripted.provider()},
            "generation": {"default_model": MODEL, "titles": False},
        }
        system = System(tmp_path_factory.mktemp("text"), settings)
        try:
            yield system.start().web.url
        finally:
            system.close()


@pytest.fixture
def new_window(browser: Browser, url: str) -> Iterator[NewWindow]:
    with windows(browser, url) as new:
        yield new


def say(window: Window, text: str) -> None:
    window.send(text)
    window.wait_until_settled()


def directions(page: Page, selector: str) -> list[str]:
    script = "all => all.map(each => getComputedStyle(each).direction)"
    return list(page.locator(f".prose {selector}").evaluate_all(script))


def test_every_block_has_the_direction_of_its_first_letter(window: Window) -> None:
    say(window, "mixed")
    page = window.page

    expect(page.locator(".prose .katex").first).to_be_visible()
    assert directions(page, "p:not(blockquote p)")[:2] == ["ltr", "rtl"]
    assert directions(page, "h1") == ["rtl"]
    assert directions(page, "ul, ol") == ["ltr", "rtl"]
    assert directions(page, "li") == ["ltr", "rtl", "rtl", "ltr"]
    assert directions(page, "blockquote") == ["rtl"]
    assert directions(page, "th, td") == ["rtl", "ltr", "ltr", "rtl"]
    assert set(directions(page, "code, figure.code, pre, .formula")) == {"ltr"}
    quote = page.locator(".prose blockquote")
    assert quote.evaluate("e => getComputedStyle(e).borderRightWidth") == "3px"
    assert quote.evaluate("e => getComputedStyle(e).borderLeftWidth") == "0px"


def test_fields_and_titles_have_the_direction_of_their_text(window: Window) -> None:
    window.field.fill(HEBREW)
    assert window.field.evaluate("e => getComputedStyle(e).direction") == "rtl"
    window.send(HEBREW)
    window.wait_until_settled()
    for selector in (".side .row .title", ".head h1"):
        title = window.page.locator(selector).first
        expect(title).to_contain_text(HEBREW)
        assert title.evaluate("e => getComputedStyle(e).direction") == "rtl"


@pytest.mark.parametrize("name", DEEP)
def test_deep_nesting_is_bounded(name: str, window: Window) -> None:
    say(window, name)

    expect(window.text).to_contain_text("deep")
    depth = """e => {
        const depth = n => 1 + Math.max(0, ...[...n.children].map(depth));
        return depth(e);
    }"""
    assert 20 < window.text.evaluate(depth) < 120
    assert window.faults == []


def test_definitions_at_the_end_change_only_what_uses_them(window: Window) -> None:
    window.page.evaluate(
        """() => {
            window.replaced = [];
            new MutationObserver(changes => {
                for (const { target, removedNodes } of changes)
                    for (const node of removedNodes)
                        if (target.classList?.contains('prose')) window.replaced.push(node.textContent);
            }).observe(document.body, { childList: true, subtree: true });
        }"""
    )
    say(window, "citing")

    expect(window.text.locator("a")).to_have_count(39)
    assert window.text.locator("a").last.get_attribute("href") == "https://example.org/39"
    assert [text for text in window.page.evaluate("window.replaced") if "Paragraph" in text] == []


def test_a_translated_page_still_changes(new_window: NewWindow) -> None:
    window = new_window().open()
    say(window, "code")
    window.page.evaluate(TRANSLATE)
    expect(window.page.locator(".head h1")).to_have_text("CODE")
    assert window.text.locator("code").first.inner_text() == "code"
    assert "let y" in window.text.locator("figure.code code").inner_text()

    window.page.locator(".side-head a").last.click()

    expect(window.page.locator(".head h1")).to_have_text("New chat")


def test_a_guest_is_warned_on_a_translated_page(new_window: NewWindow) -> None:
    window = new_window().open()
    say(window, "precious")
    window.page.get_by_role("button", name="settings").first.click()
    expect(window.button("Sign out")).to_be_visible()
    window.page.evaluate(TRANSLATE)
    sign_out = window.page.get_by_role("button", name="SIGN OUT", exact=True)

    sign_out.click()

    expect(window.page.get_by_text("Sign out and lose these conversations")).to_be_visible()
    expect(window.page.locator(".side .row")).to_have_count(1)


def test_an_answer_that_cannot_be_rendered_is_shown_as_it_is(new_window: NewWindow) -> None:
    window = new_window()
    window.page.add_init_script(
        """const walk = document.createTreeWalker;
        document.createTreeWalker = function (root, ...rest) {
            if (root.textContent.includes('[39]')) throw new Error('for this test');
            return walk.call(this, root, ...rest);
        };"""
    )
    window.open()
    say(window, "citing")

    expect(window.text).to_have_text(CITING, use_inner_text=True)
    say(window, "precious")
    expect(window.text).to_have_text("precious")
