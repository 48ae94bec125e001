"""Screenshots of the chat page: `uv run --group dev python -m tests.picture_page FOLDER [NAME …]`.

Each state is shown in light and dark, on desktop and phone.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Browser, expect

from tests.browser import LastingAddress, Window, open_browser, windows
from tests.measure_page import choose_model
from tests.scripted_provider import ScriptedProvider
from tests.system import System

ANSWER = """The tide follows the Moon, but never quite on time. Water has to move, and the shape of a harbour decides how far and how fast.

## Why it is twice a day

The Moon pulls the near side of the Earth more than its centre, and the centre more than the far side. What is left over stretches the
sea in **two** directions at once, so a point on the turning Earth meets high water about every *12 hours and 25 minutes*.

| harbour | spring range | neap range |
| --- | ---: | ---: |
| Dover | 6.0 m | 3.2 m |
| Brest | 6.1 m | 2.8 m |
| Saint-Malo | 10.7 m | 4.9 m |

The height above the mean is a sum of such waves, each with its own period:

$$
h(t) = \\sum_{k} A_k \\cos\\left(\\frac{2\\pi t}{T_k} + \\varphi_k\\right), \\qquad T_{M_2} = 12.42\\ \\mathrm{h}
$$

- [x] the Moon's wave, $M_2$
- [x] the Sun's, $S_2$, half as strong
- [ ] shallow water, which bends both
"""

CODE = '''Here it is, with the constituents as a table of their own:

```python
"""Heights of the tide from harmonic constituents."""

from dataclasses import dataclass
from math import cos, radians


@dataclass(frozen=True)
class Constituent:
    """One wave of the tide: its height in metres, its speed in degrees an hour, and where it begins."""

    name: str
    amplitude_m: float
    speed_deg_h: float
    phase_deg: float


DOVER = [
    Constituent("M2", 2.24, 28.984, 331.0),
    Constituent("S2", 0.71, 30.000, 23.0),
    Constituent("N2", 0.42, 28.440, 308.0),
]


def height_m(hours: float, constituents: list[Constituent], mean_m: float = 3.67) -> float:
    """The height above chart datum so many hours after the epoch."""
    return mean_m + sum(c.amplitude_m * cos(radians(c.speed_deg_h * hours - c.phase_deg)) for c in constituents)


def high_waters(constituents: list[Constituent], until_h: int, step_h: float = 0.05) -> list[tuple[float, float]]:
    """When the water stands highest, and how high."""
    heights = [(n * step_h, height_m(n * step_h, constituents)) for n in range(int(until_h / step_h))]
    return [here for before, here, after in zip(heights, heights[1:], heights[2:]) if before[1] < here[1] >= after[1]]
```

Call `high_waters(DOVER, 24)` for one day.
'''

QUESTIONS = [
    "Why are there two tides a day?",
    "Plan a week in Brittany",
    "Rewrite this SQL as one query",
    "What does `async with` do?",
]


class Studio:
    """An installation with a user's conversations, and their browser window."""

    window: Window

    def __init__(self, scripted: ScriptedProvider, system: System, address: LastingAddress) -> None:
        self.scripted, self.system, self.address = scripted, system, address

    def open(self) -> None:
        """Open the page with some conversations in the list."""
        self.window.open()
        for question in QUESTIONS[:0:-1]:
            self.ask(question, "Gladly.", 0)
            self.window.wait_until_settled()
            self.window.page.goto(self.window.url)
            expect(self.window.field).to_be_visible()

    def ask(self, question: str, answer: str, rate: float) -> None:
        tokens = answer.split(" ")
        self.scripted.texts[question], self.scripted.rates[question] = (
            [tokens[0], *(f" {token}" for token in tokens[1:])],
            rate,
        )
        choose_model(self.window.page)
        self.window.send(question)

    def at_top(self) -> None:
        self.window.page.evaluate("() => document.querySelector('.thread').scrollTo(0, 0)")


def empty(studio: Studio) -> None:
    expect(studio.window.page.locator(".welcome")).to_be_visible()


def streaming(studio: Studio) -> None:
    studio.ask(QUESTIONS[0], ANSWER, 40)
    studio.window.wait_for_words(75)


def code(studio: Studio) -> None:
    studio.ask("Write me a tide predictor", CODE, 0)
    studio.window.wait_until_settled()
    expect(studio.window.text.locator(".hljs-keyword").first).to_be_visible()
    studio.at_top()


def table(studio: Studio) -> None:
    studio.ask(QUESTIONS[0], ANSWER, 0)
    studio.window.wait_until_settled()
    expect(studio.window.text.locator(".katex-display")).to_be_visible()
    studio.at_top()


def failed(studio: Studio) -> None:
    studio.window.page.get_by_label("Model").select_option("demo")
    studio.window.send("/demo tokens=60 rate=0 fail_after=40\nWhen is high water in Dover?")
    expect(studio.window.button("Try again")).to_be_visible()


def reconnecting(studio: Studio) -> None:
    studio.ask(QUESTIONS[0], ANSWER, 20)
    studio.window.wait_for_words(40)
    studio.system.web.kill()
    expect(studio.window.page.locator(".link-sign.shown")).to_be_visible()


def search(studio: Studio) -> None:
    table(studio)
    if studio.window.page.viewport_size["width"] < 700:  # type: ignore[index]
        studio.window.button("Conversations").click()
    studio.window.page.get_by_label("Search conversations").fill("tides")
    expect(studio.window.page.locator(".results mark").first).to_be_visible()


def settings(studio: Studio) -> None:
    if studio.window.page.viewport_size["width"] < 700:  # type: ignore[index]
        studio.window.button("Conversations").click()
    studio.window.page.get_by_role("button", name="settings").click()
    expect(studio.window.page.get_by_role("dialog")).to_be_visible()


STATES: dict[str, Callable[[Studio], None]] = {
    state.__name__: state
    for state in (empty, streaming, code, table, failed, reconnecting, search, settings)
}
SIZES = {"desktop": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}


def picture(
    browser: Browser, studio: Studio, name: str, size: str, scheme: str, folder: Path, scale: float
) -> None:
    phone = {"is_mobile": True, "has_touch": True} if size == "phone" else {}
    with windows(browser, studio.address.url) as new:
        studio.window = new(
            viewport=SIZES[size], color_scheme=scheme, device_scale_factor=scale, **phone
        )
        studio.open()
        STATES[name](studio)
        studio.window.page.wait_for_timeout(400)  # for transitions to end
        studio.window.page.screenshot(path=folder / f"{name}-{size}-{scheme}.png")
    if not studio.system.of("web"):
        studio.address.start_web()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--scale", type=float, default=1.5, help="pixels of the picture per pixel of the page"
    )
    parser.add_argument(
        "names", nargs="*", help="state-size-scheme, of which parts may be left out"
    )
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    selectable = [
        (name, size, scheme) for name in STATES for size in SIZES for scheme in ("light", "dark")
    ]
    with (
        ScriptedProvider() as scripted,
        open_browser() as browser,
        tempfile.TemporaryDirectory() as data_folder,
    ):
        guests = {"auth": {"guest_sessions_max_per_hour_per_ip": 1000}}
        system = System(
            Path(data_folder), {"providers": {"scripted": scripted.provider()}} | guests
        )
        address = LastingAddress(system)
        try:
            system.start(webs=0)
            address.start_web()
            for state in selectable:
                if not arguments.names or any(
                    set(name.split("-")) <= set(state) for name in arguments.names
                ):
                    picture(
                        browser,
                        Studio(scripted, system, address),
                        *state,
                        arguments.folder,
                        arguments.scale,
                    )
        finally:
            system.close()
            address.close()


if __name__ == "__main__":
    main()
