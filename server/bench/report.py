"""The report of a benchmark: figures and their targets, CPU times, and faults."""

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan
from typing import Any, Final, Self

from server.bench.system import SERVER_ROLES


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value. `at_most` or `at_least` is its target."""

    name: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def target(self) -> str:
        if self.at_most is not None:
            return f"≤ {_number(self.at_most)}"
        return "" if self.at_least is None else f"≥ {_number(self.at_least)}"

    @property
    def met(self) -> bool | None:
        """Whether the target was met; None if there is none."""
        if self.at_most is not None:
            return self.value <= self.at_most
        return None if self.at_least is None else self.value >= self.at_least

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "target": self.target or None,
            "met": self.met,
        }


@dataclass(frozen=True, slots=True)
class Costs:
    """The CPU time of each process during an interval, and the number of tokens in it."""

    label: str
    wall_s: float
    cpu_s: Mapping[str, float]
    tokens: int = 0

    @property
    def server_s(self) -> float:
        """The CPU time of web, worker and Redis together."""
        return sum(self.cpu_s.get(role, 0.0) for role in SERVER_ROLES)

    def us_per_token(self, cpu_s: float) -> float:
        """Microseconds per token."""
        return cpu_s * 1e6 / self.tokens if self.tokens else 0.0

    def as_json(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "wall_s": self.wall_s,
            "tokens": self.tokens or None,
            "cpu_s": dict(self.cpu_s),
        }


class Meter:
    """Measures the CPU time that is used between its creation and `spent`."""

    def __init__(self, label: str, *clocks: Callable[[], Mapping[str, float]]) -> None:
        self._label, self._clocks = label, clocks
        self._started_s = time.monotonic()
        self._before = self._read()

    def spent(self, tokens: int = 0) -> Costs:
        """The costs since its creation, of this number of tokens."""
        after = self._read()
        cpu_s = {name: after[name] - self._before.get(name, 0.0) for name in after}
        return Costs(self._label, time.monotonic() - self._started_s, cpu_s, tokens)

    def _read(self) -> dict[str, float]:
        return {name: value for clock in self._clocks for name, value in clock().items()}


def _machine() -> str:
    load = " ".join(f"{average:.2f}" for average in os.getloadavg())
    return (
        f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, load average {load}"
    )


@dataclass(slots=True)
class Report:
    """The report of one scenario. Faults make the exit code 1; missed targets do not."""

    scenario: str
    sizes: dict[str, Any]
    figures: list[Figure] = field(default_factory=list)
    costs: list[Costs] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    machine: str = field(default_factory=_machine)

    def add(self, *figures: Figure) -> Self:
        """Appends figures."""
        self.figures.extend(figures)
        return self

    def add_costs(self, costs: Costs) -> None:
        """Appends costs, and a note if the machine was too busy for reliable delays."""
        self.costs.append(costs)
        for name, cpu_s in costs.cpu_s.items():
            if name in _ONE_THREAD and cpu_s > _BUSY * costs.wall_s:
                self.notes.append(
                    f"{name} kept a core busy ({costs.label}): delays include its queue."
                )
        if sum(costs.cpu_s.values()) > _BUSY * costs.wall_s * (os.cpu_count() or 1):
            self.notes.append(
                f"All cores were busy ({costs.label}): delays include the wait for one."
            )

    def as_json(self) -> dict[str, Any]:
        """One object with all values, not rounded."""
        return {
            "scenario": self.scenario,
            "sizes": self.sizes,
            "machine": self.machine,
            "figures": [figure.as_json() for figure in self.figures],
            "cpu": [costs.as_json() for costs in self.costs],
            "notes": self.notes,
            "faults": self.faults,
        }

    def as_text(self) -> str:
        """A table for a terminal."""
        sizes = ", ".join(
            f"{name} {_number(size) if isinstance(size, float) else size}"
            for name, size in self.sizes.items()
        )
        lines = [f"{self.scenario}: {sizes}" if sizes else self.scenario, self.machine, ""]
        verdicts = {True: "met", False: "missed", None: ""}
        lines += _table(
            [
                (f.name, f"{_number(f.value)} {f.unit}", f.target, verdicts[f.met])
                for f in self.figures
            ],
            right={1},
        )
        for costs in self.costs:
            lines += [
                "",
                f"CPU, {costs.label} ({costs.wall_s:.1f} s):",
                *_table(_cost_rows(costs), right={1, 2, 3}),
            ]
        if self.notes:
            lines += ["", *self.notes]
        return "\n".join([*lines, *(f"fault: {fault}" for fault in self.faults)])


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile; not a number if there are no values."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, -(-int(percent * len(ordered)) // 100) - 1))]


_COLUMN_GAP: Final = "  "
_ONE_THREAD: Final = frozenset({"load", "upstream", "web", "worker"})
_BUSY: Final = 0.8


def _table(rows: Sequence[Sequence[str]], *, right: set[int]) -> list[str]:
    widths = (
        [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    )
    return [
        (
            _COLUMN_GAP
            + _COLUMN_GAP.join(
                cell.rjust(w) if i in right else cell.ljust(w)
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
        ).rstrip()
        for row in rows
    ]


def _cost_rows(costs: Costs) -> list[tuple[str, str, str, str]]:
    rows = [*costs.cpu_s.items()]
    if not costs.cpu_s.keys().isdisjoint(SERVER_ROLES):
        rows.append((" + ".join(SERVER_ROLES), costs.server_s))
    return [
        (
            name,
            f"{cpu_s:.3f} s",
            f"{100 * cpu_s / costs.wall_s:.1f}%",
            f"{costs.us_per_token(cpu_s):.1f} µs/token" if costs.tokens else "",
        )
        for name, cpu_s in rows
    ]


def _number(value: float) -> str:
    if isnan(value):
        return "–"
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"
