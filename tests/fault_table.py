"""The table of faults: what readers saw of each case, and how long they waited. `FAULT_TABLE` names the file that it is written to."""

import os
from itertools import groupby, pairwise
from pathlib import Path

from tests.client import Event

DELTAS = ("text_delta", "reasoning_delta")


def note(
    case: str, seen: list[list[Event]], *, database: str = "SQLite", crashes: int | None = None
) -> None:
    """Prints a line on what these readers saw, and adds it to the file: case, database, event types, longest pause in s, crashes.

    The readers followed one answer from its beginning; one that reads what is settled already adds nothing to the pause.
    """
    saw = " | ".join(dict.fromkeys(map(types_in_order, seen)))
    columns = [
        case,
        database,
        saw,
        f"{longest_pause_s(seen):.2f}",
        "" if crashes is None else str(crashes),
    ]
    print("\t".join(["", *columns]))  # noqa: T201  this is what `-s` is for
    if path := os.environ.get("FAULT_TABLE"):
        with Path(path).open(
            "a"
        ) as table:  # one write, so that the lines of tests that run at once do not mix
            table.write("\t".join(columns) + "\n")


def note_test(seen: list[list[Event]]) -> None:
    """Notes what these readers saw under the name of the test that runs."""
    name, _, variant = (
        os.environ["PYTEST_CURRENT_TEST"].split("::")[-1].removesuffix(" (call)").partition("[")
    )
    words = name.removeprefix("test_").replace("_", " ")
    rest = [
        part
        for part in variant.removesuffix("]").split("-")
        if part not in ("", "sqlite", "postgresql")
    ]
    note(
        " ".join([words, *rest]),
        seen,
        database="PostgreSQL" if "postgresql" in variant else "SQLite",
    )


def longest_pause_s(seen: list[list[Event]]) -> float:
    """The longest time between two events that one reader waited."""
    return max(
        (after.at - before.at for events in seen for before, after in pairwise(events)), default=0.0
    )


def types_in_order(events: list[Event]) -> str:
    """The types of these events as they came; deltas that follow each other are one `…`."""
    return " ".join(
        type for type, _ in groupby("…" if event.type in DELTAS else event.type for event in events)
    )
