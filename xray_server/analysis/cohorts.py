"""Two groups of runs side by side: which metrics and which label shares moved, by how much, and whether by chance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from xray_server.analysis.diff import numbers
from xray_server.analysis.record import is_number
from xray_server.analysis.statistics import benjamini_hochberg, clustered_share_test, mann_whitney
from xray_server.documents import Document

_BY_LABEL = ("label_counts", "label_share")
_NOT_COMPARED = ("histogram", "selected_ids")
FEWEST_RUNS = 3
"""Of fewer runs a group's metric says nothing about chance."""


def compare(a: Iterable[Document], b: Iterable[Document], *, level: float = 0.05) -> dict[str, Any]:
    """Compare the stages of two groups of runs.

    For every stage (by its path) and metric the values of the runs are compared by the Mann-Whitney U test, with
    Cliff's delta as the effect; every reason label's share of the judged candidates by a chi-square test that allows
    for candidates of one run being alike, with Cohen's h. The p-values of all comparisons are adjusted together after
    Benjamini and Hochberg. ``statistics.py`` has the definitions and where they come from.

    Args:
        a: The stages' documents of the one group.
        b: Those of the other.
        level: The false discovery rate up to which a difference counts as ``moved``.

    Returns:
        ``runs`` (of both), ``metrics`` and ``labels``, those that moved first and then the largest effects first, and
        ``only_in_a``, ``only_in_b`` (paths). ``too_few`` counts the metrics of which a group had fewer than three
        values, that were not compared.
    """
    of_a, of_b = _by_path(a), _by_path(b)
    metrics: list[dict[str, Any]] = []
    labels: list[dict[str, Any]] = []
    too_few = 0
    for path in [path for path in of_a if path in of_b]:
        found, left_out = _metrics(path, of_a[path], of_b[path])
        metrics += found
        too_few += left_out
        labels += _labels(path, of_a[path], of_b[path])
    rows = metrics + labels
    for row, q in zip(rows, benjamini_hochberg([row["p"] for row in rows]), strict=True):
        row["q"] = q
        row["moved"] = q <= level
    return {
        "runs": [_run_count(of_a), _run_count(of_b)],
        "level": level,
        "metrics": sorted(metrics, key=_by_effect),
        "labels": sorted(labels, key=_by_effect),
        "only_in_a": [path for path in of_a if path not in of_b],
        "only_in_b": [path for path in of_b if path not in of_a],
        "too_few": too_few,
    }


def _metrics(path: str, a: Sequence[Document], b: Sequence[Document]) -> tuple[list[dict[str, Any]], int]:
    of_a, of_b = _values(a), _values(b)
    rows, too_few = [], 0
    for name in sorted({*of_a, *of_b}):
        x, y = of_a.get(name, []), of_b.get(name, [])
        if min(len(x), len(y)) < FEWEST_RUNS:
            too_few += 1
            continue
        p, delta = mann_whitney(x, y)
        rows.append(
            {"path": path, "metric": name, "median": [median(x), median(y)], "n": [len(x), len(y)]}
            | {"effect": delta, "effect_is": "Cliff's delta", "test": "Mann-Whitney U", "p": p}
        )  # fmt: skip
    return rows, too_few


def _labels(path: str, a: Sequence[Document], b: Sequence[Document]) -> list[dict[str, Any]]:
    of_a, of_b = _judged(a), _judged(b)
    if not of_a or not of_b:
        return []
    rows = []
    for label in sorted({label for counts, _ in (*of_a, *of_b) for label in counts}):
        groups = [[(counts.get(label, 0), size) for counts, size in group] for group in (of_a, of_b)]
        p, h, share_a, share_b = clustered_share_test(*groups)
        rows.append(
            {"path": path, "label": label, "share": [share_a, share_b]}
            | {"count": [sum(x for x, _ in g) for g in groups], "judged": [sum(n for _, n in g) for g in groups]}
            | {"effect": h, "effect_is": "Cohen's h", "test": "chi-square (Rao-Scott)", "p": p}
        )  # fmt: skip
    return rows


def _judged(stages: Sequence[Document]) -> list[tuple[Mapping[str, Any], float]]:
    """Of each stage that judged candidates its label counts, and how many it judged."""
    found: list[tuple[Mapping[str, Any], float]] = []
    for stage in stages:
        metrics = stage.get("metrics") or {}
        passed, failed, counts = metrics.get("passed"), metrics.get("failed"), metrics.get("label_counts")
        if is_number(passed) and is_number(failed) and isinstance(counts, dict) and passed + failed > 0:
            found.append((counts, passed + failed))
    return found


def _values(stages: Sequence[Document]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for stage in stages:
        metrics = stage.get("metrics") or {}
        shown = {name: value for name, value in metrics.items() if name not in (*_BY_LABEL, *_NOT_COMPARED)}
        for name, value in numbers(shown).items():
            found.setdefault(name, []).append(value)
    return found


def _by_path(stages: Iterable[Document]) -> dict[str, list[Document]]:
    found: dict[str, list[Document]] = {}
    for stage in sorted(stages, key=lambda stage: stage.get("order") or 0):
        found.setdefault(stage.get("path") or stage.get("name") or "", []).append(stage)
    return found


def _run_count(by_path: Mapping[str, Sequence[Document]]) -> int:
    return len({stage["run_id"] for stages in by_path.values() for stage in stages})


def _by_effect(row: Mapping[str, Any]) -> tuple[bool, float, str]:
    return not row["moved"], -abs(row["effect"]), row["path"]
