"""What was measured of ingest, what it was to be, and how it is printed."""

from __future__ import annotations

import dataclasses
import os
import platform
import sqlite3
import sys
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import Any

PACKAGES = ("xray-decisions", "msgspec", "zstandard", "fastapi", "uvicorn", "pymongo")
X_SIGN = "\N{MULTIPLICATION SIGN}"
STAGES_PER_S_GOAL = 5000
IDLE_MB_GOAL = 150
SIZE_GOALS = {20: 2.25, 5000: 1.75}


@dataclass(frozen=True, slots=True)
class Round:
    """One turn of the service and of the raw writes; times in seconds, memory in MiB."""

    took_s: float
    raw_s: float
    bytes_on_disk: int
    raw_bytes: int
    idle_mb: float | None
    after_mb: float | None
    peak_mb: float | None
    settled_bytes: int | None = None
    """Bytes on disk once the server has freed what was removed, where that was waited for."""


@dataclass(slots=True)
class Case:
    """A store and a number of candidates a stage."""

    store: str
    size: int
    stages: int
    untimed: int
    """Candidates of the service's first batch."""
    json_lines_bytes: int
    gzipped_bytes: int
    rounds: list[Round] = field(default_factory=list)

    @property
    def candidates(self) -> int:
        return self.stages * self.size

    def middle(self, name: str) -> float:
        """The median of a figure over the rounds; 0 where nobody could say."""
        return median(getattr(one, name) or 0 for one in self.rounds)

    @property
    def rate(self) -> float:
        """Candidates a second over HTTP."""
        return (self.candidates - self.untimed) / self.middle("took_s")

    @property
    def shares(self) -> list[float]:
        """Candidates a second over HTTP as a share of those written raw, round by round, ascending."""
        timed = 1 - self.untimed / self.candidates
        return sorted(timed * one.raw_s / one.took_s for one in self.rounds)

    @property
    def of_raw(self) -> float:
        """The median of the shares."""
        return median(self.shares)

    @property
    def settled_bytes(self) -> float:
        """Bytes on disk once the server has freed what was removed; at once where nobody waited."""
        waited = [one.settled_bytes for one in self.rounds if one.settled_bytes is not None]
        return median(waited) if waited else self.middle("bytes_on_disk")

    @property
    def of_gzipped(self) -> float:
        """Bytes on disk, once settled, as a multiple of the gzipped JSON Lines."""
        return self.settled_bytes / self.gzipped_bytes


@dataclass(slots=True)
class Report:
    """What was measured."""

    quick: bool
    cases: list[Case] = field(default_factory=list)
    took_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Goal:
    """A goal and what was measured."""

    text: str
    limit: str
    measured: str
    met: bool


def goals(report: Report) -> list[Goal]:
    """The goals with what was measured."""
    found = []
    for case in report.cases:
        place = f"{case.store}, {case.size:,} a stage"
        found.append(Goal(f"{place}: of raw candidates a second", "≥ 0.50", f"{case.of_raw:.2f}", case.of_raw >= 0.5))
        found.append(Goal(f"{place}: more than raw", "> 1.00", f"{case.of_raw:.2f}", case.of_raw > 1))
        if case.store == "sqlite" and case.size == 20:
            rate = case.rate / case.size
            limit = f"≥ {STAGES_PER_S_GOAL:,}"
            found.append(Goal(f"{place}: stages a second", limit, f"{rate:,.0f}", rate >= STAGES_PER_S_GOAL))
        if case.size in SIZE_GOALS:
            limit_ratio = SIZE_GOALS[case.size]
            found.append(
                Goal(
                    f"{place}: bytes, {X_SIGN} gzipped JSON Lines",
                    f"≤ {limit_ratio}",
                    f"{case.of_gzipped:.2f}",
                    case.of_gzipped <= limit_ratio,
                )
            )
    idle = max((case.middle("idle_mb") for case in report.cases), default=0.0)
    found.append(Goal("memory, idle, MiB", f"≤ {IDLE_MB_GOAL}", f"{idle:.0f}", idle <= IDLE_MB_GOAL))
    return found


def print_tables(report: Report) -> None:
    """Print what was measured as Markdown."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    print(f"`python {' '.join(sys.argv)}`")
    print(
        f"Python {platform.python_version()}, {cores} cores, {platform.machine()}; SQLite {sqlite3.sqlite_version}, "
        f"{', '.join(f'{package} {found}' for package, found in _versions().items())}."
    )
    rounds = max((len(case.rounds) for case in report.cases), default=0)
    print(
        f"Medians of {rounds} interleaved rounds, each on an empty store; shares of raw: medians of the rounds' own. "
        f"A {'quick' if report.quick else 'full'} run, {report.took_s:.0f} s.\n"
    )
    _row(
        "store",
        "candidates a stage",
        "stages/s",
        "candidates/s",
        "raw candidates/s",
        f"{X_SIGN} raw",
        "lowest to highest",
    )
    _row(":---", *["---:"] * 6)
    for case in report.cases:
        shares = case.shares
        _row(
            case.store,
            f"{case.size:,}",
            f"{case.rate / case.size:,.0f}",
            f"{case.rate:,.0f}",
            f"{case.candidates / case.middle('raw_s'):,.0f}",
            f"{case.of_raw:.2f}",
            f"{shares[0]:.2f} to {shares[-1]:.2f}",
        )
    print("\nBytes on disk a candidate:\n")
    _row("store", "candidates a stage", "at once", "settled", "raw", "JSON Lines", "gzipped", f"{X_SIGN} gzipped")
    _row(":---", *["---:"] * 7)
    for case in report.cases:
        each = case.candidates
        _row(
            case.store,
            f"{case.size:,}",
            f"{case.middle('bytes_on_disk') / each:.1f}",
            f"{case.settled_bytes / each:.1f}",
            f"{case.middle('raw_bytes') / each:.1f}",
            f"{case.json_lines_bytes / each:.1f}",
            f"{case.gzipped_bytes / each:.1f}",
            f"{case.of_gzipped:.2f}",
        )
    print()
    _row("store", "candidates a stage", "memory idle", "after", "at most")
    _row(":---", *["---:"] * 4)
    for case in report.cases:
        _row(
            case.store,
            f"{case.size:,}",
            *(f"{case.middle(name):.0f} MiB" for name in ("idle_mb", "after_mb", "peak_mb")),
        )
    print()
    _row("goal", "limit", "measured", "")
    _row(":---", "---:", "---:", ":---")
    for goal in goals(report):
        _row(goal.text, goal.limit, goal.measured, "ok" if goal.met else "missed")


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |")


def as_json(report: Report) -> dict[str, Any]:
    """The figures as plain values."""
    return {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "versions": _versions(),
        "cases": [
            dataclasses.asdict(case) | {"of_raw": case.of_raw, "of_gzipped": case.of_gzipped} for case in report.cases
        ],
        "goals": [dataclasses.asdict(goal) for goal in goals(report)],
        "took_s": report.took_s,
    }
