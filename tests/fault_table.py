"""The fault table: which events readers saw in each case, and their longest pause.

`FAULT_TABLE` names the file to which rows are appended.
"""

import os
from itertools import groupby, pairwise
from pathlib import Path

from tests.client import Event

DELTAS = ("text_delta", "reasoning_delta")


def note(
    case: str, seen: list[list[Event]], *, database: str = "SQLite", crashes: int | None = None
) -> None:
    """Print a row about these readers and append it to the table.

    The columns are case, database, event types, longest pause in seconds, and crashes. The readers
    must have followed one answer from its beginning.
    """
    saw = " | ".join(dict.fromkeys(map(types_in_order, seen)))
    columns = [
        case,
        database,
        saw,
        f"{longest_pause_s(seen):.2f}",
        "" if crashes is None else str(crashes),
    ]
    print("\t".join(["", *columns]))  # noqa: T201  shown with `pytest -s`
    if path := os.environ.get("FAULT_TABLE"):
        with Path(path).open("a") as table:
            # One write, so that lines of concurrent tests are not interleaved.
            table.write("\t".join(columns) + "\n")


def note_test(seen: list[list[Event]]) -> None:
    """Note what these readers saw under the name of the running test."""
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
    """The longest time between two events of one reader."""
    return max(
        (after.at - before.at for events in seen for before, after in pairwise(events)), default=0.0
    )


def types_in_order(events: list[Event]) -> str:
    """The event types in order; consecutive deltas are shown as one `…`."""
    return " ".join(
        type for type, _ in groupby("…" if event.type in DELTAS else event.type for event in events)
    )
