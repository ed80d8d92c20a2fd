"""What was measured, what it was to be, and how it is printed."""

from __future__ import annotations

import dataclasses
import os
import platform
import sys
from dataclasses import dataclass, field
from importlib.metadata import version
from statistics import median
from typing import Any

from support.measure import Burst, Rounds, over_plain, ratio, spread
from support.recorders import DISABLED, FULL, ORJSON, OTEL, SAMPLED, SUMMARY
from support.sink import Arrived
from support.workload import SIZES

PACKAGES = ("xray-decisions", "msgspec", "zstandard", "orjson", "opentelemetry-sdk",
            "opentelemetry-exporter-otlp-proto-http")  # fmt: skip
ROWS = (ORJSON, OTEL, FULL, SAMPLED, SUMMARY, DISABLED)
X_ORJSON, X_OTEL = "\N{MULTIPLICATION SIGN} orjson", "\N{MULTIPLICATION SIGN} OpenTelemetry"


@dataclass(slots=True)
class Report:
    """What was measured."""

    caller: dict[int, Rounds] = field(default_factory=dict)
    cpu: dict[int, Rounds] = field(default_factory=dict)
    arrived: dict[str, tuple[Arrived, Arrived]] = field(default_factory=dict)
    """Recorder → (recorded, arrived) of the calls that were timed."""
    bursts: list[Burst] = field(default_factory=list)
    took_s: float = 0.0

    def lost(self) -> list[str]:
        """What of X-Ray's did not arrive."""
        lost = [
            f"{name}: {recorded} was recorded, {arrived} arrived"
            for name, (recorded, arrived) in self.arrived.items()
            if name != OTEL and recorded != arrived
        ]
        # A burst that the default buffer could not hold was repeated with a larger one, and that must have held it.
        last = {(one.recorder, one.size): one for one in self.bursts if one.recorder != OTEL}
        return lost + [
            f"{one.recorder}, burst of {one.calls} stages of {one.size}: {one.arrived.candidates} candidates arrived"
            for one in last.values()
            if not one.whole
        ]


@dataclass(frozen=True, slots=True)
class Goal:
    """A goal and what was measured."""

    text: str
    limit: float
    measured: float
    unit: str

    @property
    def verdict(self) -> str:
        return "ok" if self.measured <= self.limit else "over"


def goals(report: Report) -> list[Goal]:
    """The goals with what was measured."""

    def caller(size: int, name: str, yardstick: str = ORJSON) -> float:
        return ratio(report.caller[size], name, yardstick)

    disabled = max(over_plain(times, DISABLED) for times in report.caller.values())
    return [
        Goal("caller's thread, full, 100 candidates", 1.25, caller(100, FULL), X_ORJSON),
        Goal("caller's thread, full, 5,000 candidates", 1.25, caller(5000, FULL), X_ORJSON),
        Goal("caller's thread, sampled, 5,000 candidates", 0.7, caller(5000, SAMPLED), X_ORJSON),
        Goal("caller's thread, summary, 5,000 candidates", 0.7, caller(5000, SUMMARY), X_ORJSON),
        Goal("caller's thread, full, 1 candidate", 0.4, caller(1, FULL, OTEL), X_OTEL),
        Goal("disabled, over a plain call", 0.3, disabled, "µs"),
        Goal("processor time, full, 5,000 candidates", 4.0, ratio(report.cpu[5000], FULL, ORJSON), X_ORJSON),
    ]


def print_tables(report: Report, *, quick: bool) -> None:
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    print(f"Python {platform.python_version()}, {cores} cores, {platform.machine()}; {versions}.")
    print(
        "Microseconds a call, over a plain call: medians of interleaved rounds; ratios: medians of the rounds' own, "
        "and where the middle half of them lies. CPU: of the whole process until everything is delivered. "
        f"A {'quick' if quick else 'full'} run, {report.took_s:.0f} s.\n"
    )
    _row("candidates", "recorder", "caller µs", X_ORJSON, "middle half", X_OTEL, "CPU µs", X_ORJSON, X_OTEL)
    _row("---:", ":---", *["---:"] * 7)
    for size in SIZES:
        for name in ROWS:
            caller = _cells(report.caller[size], name, middle_half=True)
            _row(f"{size:,}", name, *caller, *_cells(report.cpu[size], name))
    print()
    _row("goal", "at most", "measured", "")
    _row(":---", "---:", "---:", ":---")
    for goal in goals(report):
        _row(goal.text, f"{goal.limit:g} {goal.unit}", f"{goal.measured:.2f}", goal.verdict)
    print()
    _row("back to back", "recorder", "stages arrived", "candidates arrived", "caller's thread", "until delivered")
    _row(":---", ":---", *["---:"] * 4)
    for one in report.bursts:
        raised = f", buffer_bytes={one.buffer_bytes >> 20} MiB" if one.buffer_bytes else ""
        _row(
            f"{one.calls:,} stages of {one.size:,}",
            one.recorder + raised,
            f"{one.arrived.stages:,} of {one.calls:,}",
            f"{one.arrived.candidates:,} of {one.calls * one.size:,}",
            f"{one.caller_s:.2f} s",
            f"{one.delivered_s:.2f} s",
        )
    timed = (
        f"{name} {arrived.stages:,} of {recorded.stages:,} stages and {arrived.seen:,} of {recorded.seen:,} candidates"
        for name, (recorded, arrived) in report.arrived.items()
    )
    print(f"\nDefault settings where nothing else is said. Of the calls that were timed arrived: {'; '.join(timed)}.")


def _cells(times: Rounds, name: str, *, middle_half: bool = False) -> list[str]:
    cells = [_micro(over_plain(times, name)), *(f"{ratio(times, name, yardstick):.2f}" for yardstick in (ORJSON, OTEL))]
    if middle_half:
        low, high = spread(times, name, ORJSON)
        cells.insert(2, f"{low:.2f} to {high:.2f}")
    return cells


def _micro(microseconds: float) -> str:
    return f"{microseconds:,.{2 if microseconds < 1 else 1 if microseconds < 1000 else 0}f}"


def _row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |")


def as_json(report: Report) -> dict[str, Any]:
    """The figures as plain values."""

    def figures(times: Rounds) -> dict[str, dict[str, float]]:
        return {
            name: {
                "median_us": median(times[name]),
                "over_plain_us": over_plain(times, name),
                "x_orjson": ratio(times, name, ORJSON),
                "x_opentelemetry": ratio(times, name, OTEL),
            }
            for name in times
            if name in ROWS
        }

    return {
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES},
        "caller": {size: figures(times) for size, times in report.caller.items()},
        "cpu": {size: figures(times) for size, times in report.cpu.items()},
        "goals": [dataclasses.asdict(goal) | {"verdict": goal.verdict} for goal in goals(report)],
        "bursts": [dataclasses.asdict(one) | {"whole": one.whole} for one in report.bursts],
        "lost": report.lost(),
        "took_s": report.took_s,
    }
