"""What was measured of questions, what it was to be, and how it is printed."""

from __future__ import annotations

import dataclasses
import os
import platform
import sqlite3
import sys
from dataclasses import dataclass, field
from statistics import median
from typing import Any

X_SIGN = "\N{MULTIPLICATION SIGN}"
RATIO_GOAL = 2.0
GROWTH_GOAL = 2.0


@dataclass(frozen=True, slots=True)
class Filled:
    """A store that was filled: how long it took, and what it takes on disk."""

    store: str
    size: int
    candidates: int
    took_s: float | None
    bytes_on_disk: int


@dataclass(slots=True)
class Measured:
    """A question in a store of some size; the n-th times are of the same values."""

    store: str
    size: int
    question: str
    indexed: bool
    took_s: list[float] = field(default_factory=list)
    by_hand_s: list[float] = field(default_factory=list)
    same: bool = True
    """Whether both ways always gave the same answer."""
    failed: str = ""
    """Why the service gave no answer, where it gave none; then there are no times."""

    @property
    def ratio(self) -> float:
        """The median of the service's times over the hand's."""
        return median(self.took_s) / median(self.by_hand_s)


@dataclass(slots=True)
class Report:
    """What was measured."""

    filled: list[Filled] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    took_s: float = 0.0

    def growths(self) -> list[tuple[str, str, bool, int, int, float, float]]:
        """Store, question, whether it is indexed, smallest and largest size, how the median grew, and that by hand."""
        found: dict[tuple[str, str], list[Measured]] = {}
        for one in self.measured:
            if not one.failed:
                found.setdefault((one.store, one.question), []).append(one)
        return [
            (store, question, sizes[0].indexed, sizes[0].size, sizes[-1].size,
             median(sizes[-1].took_s) / median(sizes[0].took_s),
             median(sizes[-1].by_hand_s) / median(sizes[0].by_hand_s))
            for (store, question), sizes in found.items()
            if len(sizes) > 1
        ]  # fmt: skip


def quantile_ms(times_s: list[float], share: float) -> float:
    """A quantile of times, in milliseconds."""
    ordered = sorted(times_s)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000


def goals(report: Report) -> list[tuple[str, str, str, bool]]:
    """Each goal, its limit, what was measured, and whether it is met."""
    found = [
        (f"{one.store}, {one.size:,} stages: {one.question}, {X_SIGN} by hand", f"≤ {RATIO_GOAL:g}",
         "failed" if one.failed else f"{one.ratio:.2f}", not one.failed and one.ratio <= RATIO_GOAL)
        for one in report.measured
    ]  # fmt: skip
    found += [
        (f"{store}: {question}, growth from {first:,} to {last:,}", f"≤ {GROWTH_GOAL:g}",
         f"{growth:.2f} (by hand {by_hand:.2f})", growth <= GROWTH_GOAL)
        for store, question, indexed, first, last, growth, by_hand in report.growths()
        if indexed
    ]  # fmt: skip
    return found


def print_tables(report: Report) -> None:
    """Print what was measured as Markdown."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    print(f"`python {' '.join(sys.argv)}`")
    print(
        f"Python {platform.python_version()}, {cores} cores, {platform.machine()}; SQLite {sqlite3.sqlite_version}. "
        f"{report.took_s:.0f} s.\n"
    )
    _row("store", "stages", "candidates a stage", "filled in", "on disk")
    _row(":---", *["---:"] * 4)
    for one in report.filled:
        size = f"{one.bytes_on_disk / 1e6:,.0f} MB"
        took = "before" if one.took_s is None else f"{one.took_s:.0f} s"
        _row(one.store, f"{one.size:,}", f"{one.candidates}", took, size)
    print()
    _row("store", "stages", "question", "p50", "p95", "by hand p50", "p95", f"{X_SIGN} by hand", "")
    _row(":---", "---:", ":---", *["---:"] * 5, ":---")
    for row in report.measured:
        if row.failed:
            _row(row.store, f"{row.size:,}", row.question, *[""] * 5, row.failed)
            continue
        times = [quantile_ms(times, share) for times in (row.took_s, row.by_hand_s) for share in (0.5, 0.95)]
        note = "" if row.same else "not the same answer"
        cells = [f"{time:.1f} ms" for time in times]
        _row(row.store, f"{row.size:,}", row.question, *cells, f"{row.ratio:.2f}", note)
    print()
    _row("goal", "limit", "measured", "")
    _row(":---", "---:", "---:", ":---")
    for text, limit, measured, met in goals(report):
        _row(text, limit, measured, "ok" if met else "missed")


def _row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |")


def as_json(report: Report) -> dict[str, Any]:
    """The figures as plain values; times in seconds."""
    return {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "filled": [dataclasses.asdict(one) for one in report.filled],
        "measured": [dataclasses.asdict(one) | {"ratio": None if one.failed else one.ratio} for one in report.measured],
        "goals": [dict(zip(("goal", "limit", "measured", "met"), goal, strict=True)) for goal in goals(report)],
        "took_s": report.took_s,
    }
