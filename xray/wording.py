"""How figures are worded for people: the same on the command line, in notebooks and in test reports.

Everything here gives plain text; whoever prints it escapes it for the medium.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

Document = Mapping[str, Any]

_ISO_UTC = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.\d+)?Z\Z", re.ASCII)

_BUILT_IN_TYPES = frozenset({"filtering", "generation", "ranking", "raw", "retrieval", "scoring", "selection"})
_SAID_ALREADY = frozenset({"duration_ms", "input_count", "output_count", "fail_ratio", "kendall_tau"})


def percent(ratio: float) -> str:
    """A ratio as a percentage; never rounded up to 100 % or down to 0 %."""
    text = f"{ratio:.1%}"
    if text == "100.0%" and ratio < 1:
        return "> 99.9%"
    if text == "0.0%" and ratio > 0:
        return "< 0.1%"
    return text


def duration(duration_ms: float | None) -> str:
    """A duration in the unit that suits it."""
    if duration_ms is None:
        return ""
    if duration_ms < 0:
        return f"-{duration(-duration_ms)}"
    if duration_ms < 1:
        return f"{duration_ms * 1000:.0f} µs"
    if duration_ms < 1000:
        return f"{duration_ms:.1f} ms"
    for unit, factor, limit in (("s", 1000, 120), ("min", 60_000, 120), ("h", 3_600_000, 48)):
        if duration_ms < limit * factor:
            return f"{duration_ms / factor:.{2 if unit == 's' else 1}f} {unit}"
    return f"{duration_ms / 86_400_000:.1f} d"


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number of things: ``1 run``, ``2,000 runs``.

    Args:
        number: How many.
        one: The word for one of them.
        many: The word for several; ``one`` with an "s" where it is None.
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def moment(time: Any) -> str:
    """A moment to the second: ``2026-11-01 12:00:05Z``.

    Args:
        time: ISO 8601 in UTC, as the service answers; anything else is only made inert.
    """
    text = inert(time)
    found = _ISO_UTC.match(text)
    return f"{found[1]} {found[2]}Z" if found else text


def size(size_bytes: int) -> str:
    """A size in the unit that suits it, to three digits: ``38.2 GB``."""
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 1000)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.3g} {unit}"
    return f"{size_bytes} B"


def top_labels(counts: Mapping[str, int], most: int = 3) -> str:
    """The most frequent labels with their counts.

    Args:
        counts: Label → how many candidates.
        most: How many labels are named; how many more there are is said.
    """
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{inert(label)} {count:,}" for label, count in ordered[:most])
    return shown + (f", {len(ordered) - most} more" if len(ordered) > most else "")


def inert(value: Any) -> str:
    """A recorded value as text without control characters, which could do things to a terminal."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr)
    return "".join(c if c.isprintable() else "�" for c in text)


def counts(stage: Document) -> tuple[int | None, int | None]:
    """How many candidates went into a stage and came out of it, where it says so."""
    metrics = stage.get("metrics") or {}
    came, went = metrics.get("input_count"), metrics.get("output_count")
    return (came if _is_number(came) else None), (went if _is_number(went) else None)


def figures(stage: Document) -> list[str]:
    """What a stage's metrics say in a few words: counts, fail ratio, top labels, scores, rank correlation.

    Of a plugin's type, its first metrics that are numbers.
    """
    metrics = stage.get("metrics") or {}
    came, went = counts(stage)
    parts = []
    if came is not None and went is not None:
        parts.append(f"{came:,} → {went:,}")
    elif went is not None:
        parts.append(f"→ {went:,}")
    if _is_number(metrics.get("fail_ratio")):
        parts.append(f"fail {percent(metrics['fail_ratio'])}")
    labels = metrics.get("label_counts")
    if isinstance(labels, dict) and all(map(_is_number, labels.values())):
        parts.append(top_labels(labels))
    score = metrics.get("score")
    if isinstance(score, dict) and _is_number(score.get("p50")) and _is_number(score.get("max")):
        parts.append(f"score p50 {score['p50']:.3g} max {score['max']:.3g}")
    if _is_number(metrics.get("kendall_tau")):
        parts.append(f"tau {metrics['kendall_tau']:.2f}")
    if stage.get("type") not in _BUILT_IN_TYPES:
        parts += _of_plugin(metrics)
    return [part for part in parts if part]


def _of_plugin(metrics: Mapping[str, Any], most: int = 5) -> list[str]:
    """The metrics of a type of which nothing is known but their names."""
    own = [name for name, value in metrics.items() if name not in _SAID_ALREADY and _is_number(value)]
    return [f"{inert(name)} {metrics[name]:.4g}" for name in own[:most]]


def error_line(document: Document) -> str:
    """The error of a run or a stage in one line; empty where there is none."""
    error = document.get("error")
    if not isinstance(error, dict):
        return ""
    where = f" (in {inert(error['stage'])})" if error.get("stage") else ""
    return f"{inert(error.get('type'))}: {inert(error.get('message'))}{where}"


def depths(stages: list[Any]) -> list[int]:
    """How many stages each stage lies inside of, for indentation.

    Args:
        stages: The stages of one run, in order.
    """
    depth_of: dict[Any, int] = {}
    for stage in stages:
        depth_of[stage.get("id")] = depth_of.get(stage.get("parent_id"), -1) + 1
    return [depth_of[stage.get("id")] for stage in stages]


def funnel(run: Document) -> str:
    """A run as lines of plain text: its head, then a line a stage.

    Args:
        run: A run's document with its ``stages``.
    """
    head = [inert(run.get("label")) or "run", inert(run.get("key")), inert(run.get("status"))]
    lines = ["  ".join(part for part in [*head, duration(run.get("duration_ms"))] if part)]
    if error_line(run):
        lines.append(f"  {error_line(run)}")
    stages = list(run.get("stages") or ())
    names = ["  " * depth + inert(stage.get("name")) for depth, stage in zip(depths(stages), stages, strict=True)]
    width = max(map(len, names), default=0)
    for name, stage in zip(names, stages, strict=True):
        failed = ["failure"] if stage.get("status") == "failure" else []
        parts = [name.ljust(width), inert(stage.get("type")), *figures(stage), *failed]
        lines.append("  " + "  ".join(part for part in parts if part))
        if error_line(stage):
            lines.append("    " + error_line(stage))
    return "\n".join(lines if stages else [*lines, "  no stages"])


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
