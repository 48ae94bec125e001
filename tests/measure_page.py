"""Measure the chat page while it renders a long answer.

`uv run --group dev python -m tests.measure_page [--tokens 20000] [--rate 200] [--kind …]` runs an installation,
Chromium, and a scripted model that sends a text at the given rate. The figures come from the
browser: long tasks, the time from a key press to the next frame, the size of the heap and of the
document. After the first second, no task may last 100 ms.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from tests.browser import Window, open_browser, windows
from tests.scripted_provider import MODEL, ScriptedProvider
from tests.system import System

TASK_MAX_MS = 100
WORDS = [
    "tide",
    "water",
    "mark",
    "shore",
    "wave",
    "harbour",
    "moon",
    "sand",
    "current",
    "drift",
    "anchor",
    "sail",
    "north",
    "light",
]

OBSERVE = """() => {
  const seen = window.measured = { tasks: [], keys: [], shift: 0 };
  new PerformanceObserver(list => list.getEntries()
    .forEach(e => seen.tasks.push([e.startTime, e.duration])))
    .observe({ type: 'longtask' });
  new PerformanceObserver(list => list.getEntries()
    .forEach(e => e.name.startsWith('key') && seen.keys.push(e.duration)))
    .observe({ type: 'event', durationThreshold: 16 });
  new PerformanceObserver(list => list.getEntries()
    .forEach(e => { if (!e.hadRecentInput) seen.shift += e.value }))
    .observe({ type: 'layout-shift' });
  seen.begun = performance.now();
}"""


def tokens_of(kind: str, count: int) -> list[str]:
    """A text of about this many tokens: a paragraph, code, a table, a list, or mixed Markdown."""
    rng = random.Random(kind)

    def words(n: int) -> str:
        return " ".join(rng.choice(WORDS) for _ in range(n))

    lines: list[str] = []
    n = 0
    if kind == "code":
        lines.append("```python\n")
    if kind == "table":
        lines.append("| mark | water | said |\n| --- | ---: | --- |\n")
    while n < count:
        if kind == "paragraph":
            line = words(40) + " "
        elif kind == "code":
            line = (
                f"def {rng.choice(WORDS)}_{n}({words(1)}):\n"
                f"    return {words(1)} + {n}  # {words(4)}\n"
            )
        elif kind == "table":
            line = f"| {words(1)} | {rng.random():.2f} | {words(4)} |\n"
        elif kind == "list":
            line = f"- **{words(1)}** {words(8)} `{words(1)}`\n"
        else:
            line = _section(n, words, rng)
        lines.append(line)
        n += len(line.split())
    return [piece for line in lines for piece in _pieces(line)][:count]


def _section(n: int, words: Any, rng: random.Random) -> str:
    table = "".join(f"| {words(1)} | {rng.random():.2f} |\n" for _ in range(6))
    items = "".join(f"{i + 1}. {words(9)}\n" for i in range(5))
    return (
        f"## {words(3)}\n\n{words(60)}. **{words(3)}** {words(30)}.\n\n{items}\n"
        f"| a | b |\n|---|--:|\n{table}\n"
        f"```python\n"
        + "".join(f"{words(1)}_{n} = {words(1)}({rng.random():.3f})\n" for _ in range(12))
        + "```\n\n"
        f"So $x_{{{n % 9}}} = \\frac{{{n % 7}}}{{2}}$ and "
        f"[{words(1)}](https://example.org/{n}).\n\n"
    )


def _pieces(line: str) -> list[str]:
    first, *rest = line.split(" ")
    return [first, *(f" {word}" for word in rest)]


def measure(window: Window, name: str, tokens: int, rate: float) -> dict[str, Any]:
    """Send a message, type while its answer arrives, and return the figures."""
    page, cdp = window.page, window.page.context.new_cdp_session(window.page)
    cdp.send("Performance.enable")
    page.evaluate(OBSERVE)
    window.send(name)
    heap: list[float] = []
    deadline = time.monotonic() + tokens / rate * 2 + 60
    while window.answer.get_attribute("aria-busy") == "true" and time.monotonic() < deadline:
        window.field.press_sequentially("tide ", delay=30)
        heap.append(_metrics(cdp)["JSHeapUsedSize"] / 1e6)
        page.wait_for_timeout(500)
    assert window.answer.get_attribute("aria-busy") == "false", "the answer did not end in time"
    cdp.send("HeapProfiler.collectGarbage")
    end = _metrics(cdp)
    observed = page.evaluate("() => window.measured")
    late = [duration for start, duration in observed["tasks"] if start - observed["begun"] > 1000]
    keys = sorted(observed["keys"]) or [0]
    return {
        "tasks_over_50_ms": len(late),
        "longest_task_ms": round(max(late, default=0)),
        "keys_over_16_ms": len(observed["keys"]),
        "key_p95_ms": keys[int(len(keys) * 0.95) - 1 if len(keys) > 1 else 0],
        "key_longest_ms": max(keys),
        "heap_most_mb": round(max(heap, default=0), 1),
        "heap_after_mb": round(end["JSHeapUsedSize"] / 1e6, 1),
        "nodes": int(end["Nodes"]),
        "layout_shift": round(observed["shift"], 4),
        "script_s": round(end["ScriptDuration"], 1),
        "layout_s": round(end["LayoutDuration"] + end["RecalcStyleDuration"], 1),
    }


def _metrics(cdp: Any) -> dict[str, float]:
    return {each["name"]: each["value"] for each in cdp.send("Performance.getMetrics")["metrics"]}


def choose_model(page: Page) -> None:
    page.get_by_label("Model").select_option(MODEL)


def report(title: str, figures: dict[str, Any]) -> None:
    sys.stdout.write(
        "\n".join([title, *(f"  {name} {figure}" for name, figure in figures.items())]) + "\n"
    )
    sys.stdout.flush()


def main() -> int:
    kinds = ["paragraph", "markdown", "code", "table", "list"]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=20_000)
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--kind", choices=kinds, action="append")
    arguments = parser.parse_args()
    worst = 0
    with (
        ScriptedProvider() as scripted,
        tempfile.TemporaryDirectory() as folder,
        open_browser() as browser,
    ):
        system = System(Path(folder), {"providers": {"scripted": scripted.provider()}})
        try:
            system.start()
            for kind in arguments.kind or kinds:
                scripted.texts[kind], scripted.rates[kind] = (
                    tokens_of(kind, arguments.tokens),
                    arguments.rate,
                )
                with windows(browser, system.web.url) as new:
                    window = new(viewport={"width": 1280, "height": 800}).open()
                    choose_model(window.page)
                    figures = measure(window, kind, arguments.tokens, arguments.rate)
                worst = max(worst, figures["longest_task_ms"])
                report(f"{kind}: {arguments.tokens} tokens at {arguments.rate:g}/s", figures)
        finally:
            system.close()
    return int(worst > TASK_MAX_MS)


if __name__ == "__main__":
    sys.exit(main())
