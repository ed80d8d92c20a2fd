"""Two runs side by side: where they part, whose verdict flipped, how the order and the metrics changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from xray.metrics import kendall_tau
from xray_server.analysis.record import Row, RunRecord, StageRecord, is_number

MAX_NAMED = 200
"""Candidates and paths that one list names; beside it stands how many there are."""


def diff(a: RunRecord, b: RunRecord) -> dict[str, Any]:
    """Compare two runs, stage by stage of the same path.

    The first divergent stage is the first, in the order of ``a``, that only one of them has, or in which candidates,
    verdicts, reasons, scores, ranks or metrics other than the duration differ. Times and ids of runs do not count.

    Args:
        a: The one run, with its candidates.
        b: The other.

    Returns:
        ``a``, ``b`` (their heads), ``input`` and ``output`` (changes by path), ``first_divergent`` (a path or None),
        ``only_in_a``, ``only_in_b`` (paths), ``stages`` (see :func:`compare_stages`), ``flips`` (of all stages, in
        order).
    """
    of_a, of_b = _by_path(a), _by_path(b)
    stages = [compare_stages(stage, of_b[path]) for path, stage in of_a.items() if path in of_b]
    only_a = [path for path in of_a if path not in of_b]
    only_b = [path for path in of_b if path not in of_a]
    divergent = {stage["path"] for stage in stages if stage["differs"]} | {*only_a, *only_b}
    # A stage that only b has stands after the stage before it in b.
    first = next((path for path in _merged_order(list(of_a), list(of_b)) if path in divergent), None)
    return {
        "a": a.head(),
        "b": b.head(),
        "input": changes(a.document.get("input"), b.document.get("input")),
        "output": changes(a.document.get("output"), b.document.get("output")),
        "first_divergent": first,
        "only_in_a": only_a,
        "only_in_b": only_b,
        "flips": [{"path": stage["path"], **flip} for stage in stages for flip in stage["flips"]],
        "stages": stages,
    }


def compare_stages(a: StageRecord, b: StageRecord) -> dict[str, Any]:
    """Compare two stages of the same path.

    Returns:
        ``differs``; ``input`` and ``metrics`` (changes); ``flips``: the candidates that both have and that went on in
        one of them only, or whose verdict differs, with both verdicts and reason labels; ``only_in_a``, ``only_in_b``
        (ids; None where the other does not hold all its candidates, so that nobody can say); ``common`` (how many
        ids both have); ``rank_correlation``: Kendall's tau-b over the common candidates by their ranks, or where
        there are none by their scores; ``changed`` (candidates whose label, score or rank differs);
        ``complete``: whether both hold all candidates.
    """
    common = [candidate_id for candidate_id in a.places if candidate_id in b.places]
    pairs = [(candidate_id, _of(a, candidate_id), _of(b, candidate_id)) for candidate_id in common]
    flips = [_flip(candidate_id, a, x, b, y) for candidate_id, x, y in pairs if _flipped(a, x, b, y)]
    changed = [candidate_id for candidate_id, x, y in pairs if any(x.get(name) != y.get(name) for name in _DECIDED)]
    only_a = [i for i in a.places if i not in b.places] if b.has_all else None
    only_b = [i for i in b.places if i not in a.places] if a.has_all else None
    metrics = metric_changes(a.metrics, b.metrics)
    given = changes(a.document.get("input"), b.document.get("input"))
    repeats = {i: len(p) for i, p in a.places.items()} != {i: len(p) for i, p in b.places.items()}
    differs = bool(
        only_a or only_b or flips or changed or given or (repeats and a.has_all and b.has_all)
        or any(change["name"].partition(".")[0] not in _TIMING for change in metrics)
        or a.document.get("status") != b.document.get("status")
    )  # fmt: skip
    return {
        "path": a.path,
        "type": a.type,
        "a": a.id,
        "b": b.id,
        "differs": differs,
        "complete": a.has_all and b.has_all,
        "status": [a.document.get("status"), b.document.get("status")],
        "common": len(common),
        "flips": flips,
        "changed": _named(changed),
        "only_in_a": _named(only_a),
        "only_in_b": _named(only_b),
        "rank_correlation": _correlation(pairs),
        "input": given,
        "metrics": metrics,
    }


def _of(stage: StageRecord, candidate_id: str) -> Row:
    row = stage.row(candidate_id)
    assert row is not None
    return row


_DECIDED = ("verdict", "reason_label", "score", "scores", "rank", "source")
_TIMING = frozenset({"duration_ms"})


def metric_changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The numbers that differ, with those inside tables, by name: ``name``, ``a``, ``b``, ``change`` (b - a)."""
    of_a, of_b = numbers(a), numbers(b)
    return [
        {
            "name": name,
            "a": of_a.get(name),
            "b": of_b.get(name),
            "change": of_b[name] - of_a[name] if name in of_a and name in of_b else None,
        }
        for name in sorted({*of_a, *of_b})
        if of_a.get(name) != of_b.get(name)
    ]


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """A stage's metrics as plain numbers: those inside a table as ``table.key``."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        if is_number(value):
            found[name] = value
        elif isinstance(value, dict):
            found |= {f"{name}.{key}": inner for key, inner in value.items() if is_number(inner)}
    return found


def changes(a: Any, b: Any) -> list[dict[str, Any]]:
    """Where two JSON values differ: ``path``, ``a`` and ``b``; None stands for what is not there."""
    found: list[dict[str, Any]] = []
    for path, x, y in _walk(a, b, ""):
        if len(found) == MAX_NAMED:
            break
        found.append({"path": path, "a": x, "b": y})
    return found


def _walk(a: Any, b: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            yield from _walk(a.get(key), b.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for place, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from _walk(x, y, f"{path}[{place}]")
    elif (type(a) is not type(b) and not (is_number(a) and is_number(b))) or a != b:
        yield path, a, b


def _flipped(a: StageRecord, x: Row, b: StageRecord, y: Row) -> bool:
    return x.get("verdict") != y.get("verdict") or a.lost(x) != b.lost(y)


def _flip(candidate_id: str, a: StageRecord, x: Row, b: StageRecord, y: Row) -> dict[str, Any]:
    return {
        "candidate_id": candidate_id,
        "verdict": [x.get("verdict"), y.get("verdict")],
        "went_on": [not a.lost(x), not b.lost(y)],
        "reason_label": [x.get("reason_label"), y.get("reason_label")],
        "score": [x.get("score"), y.get("score")],
        "rank": [x.get("rank"), y.get("rank")],
    }


def _correlation(pairs: list[tuple[str, Row, Row]]) -> dict[str, Any] | None:
    for column in ("rank", "score"):
        both = [(x[column], y[column]) for _, x, y in pairs if is_number(x.get(column)) and is_number(y.get(column))]
        if both:
            tau = kendall_tau([first for first, _ in both], [second for _, second in both])
            return {"kendall_tau": tau, "by": column, "over": len(both)}
    return None


def _named(ids: list[str] | None) -> dict[str, Any] | None:
    return None if ids is None else {"count": len(ids), "ids": ids[:MAX_NAMED]}


def _by_path(run: RunRecord) -> dict[str, StageRecord]:
    found: dict[str, StageRecord] = {}
    for stage in run.stages:
        found.setdefault(stage.path, stage)
    return found


def _merged_order(of_a: list[str], of_b: list[str]) -> list[str]:
    """The paths of both in an order that keeps that of ``a``; what only ``b`` has follows what it follows there."""
    merged = list(of_a)
    for place, path in enumerate(of_b):
        if path not in merged:
            before = next((other for other in reversed(of_b[:place]) if other in merged), None)
            merged.insert(merged.index(before) + 1 if before is not None else 0, path)
    return merged
