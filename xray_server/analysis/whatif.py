"""What-if: who would have passed under another cutoff, or without a rule, by the scores and labels that are stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from xray_server.analysis.record import RunRecord, StageRecord, is_number, went_on_after

MAX_NAMED = 1000
"""Candidates that one list names; beside it stands how many there are."""


def what_if(
    run: RunRecord,
    stage: StageRecord,
    *,
    threshold: float | None = None,
    below: bool = False,
    without: str | None = None,
    score: str | None = None,
    near: int = 10,
) -> dict[str, Any]:
    """Who would pass a stage if it had been set otherwise.

    Args:
        run: The run, with its candidates.
        stage: The stage.
        threshold: The score from which on a candidate passes; None asks about labels alone.
        below: Whether lower scores are better: then a candidate passes up to the threshold.
        without: A reason label: what if nothing had been rejected for it.
        score: The name of one of several scores (``scores``); the score by default.
        near: How many candidates on each side the near-miss table has.

    Returns:
        ``stage``, ``capture``, ``labels`` (see :func:`_labels`) and, with a threshold, ``threshold``: ``passes`` and
        ``fails`` (how many of the stored candidates would), ``unscored``, ``decided_by``, ``now`` (how many of the
        scored went on), ``gained`` and ``lost`` (those for whom it would be otherwise; None where nobody decided),
        ``near``. ``exact`` is false where the stage does not hold all its candidates: then the lists are those of
        the candidates that are kept.
    """
    answer: dict[str, Any] = {
        "run": run.head(),
        "stage": {"id": stage.id, "path": stage.path, "type": stage.type},
        "capture": stage.kept,
        "exact": stage.has_all,
        "labels": _labels(stage, without),
    }
    if threshold is not None:
        answer["threshold"] = _threshold(run, stage, threshold, below, score, near)
    return answer


def _labels(stage: StageRecord, without: str | None) -> list[dict[str, Any]]:
    """For each reason label how many more would survive without it, most first.

    ``more`` counts the rejected candidates that have the label; of those with an evaluation table (``checks``) only
    those that failed no check but the one of that name. ``exact`` says whether all rejected candidates were looked at;
    a stage that does not hold all candidates counts by its metrics, which cover all of them, where no candidate has a
    table. A candidate without a table may break other rules too, that were not looked at once one had rejected it:
    ``more`` is then the most that it can be (``at_most``).
    """
    rejected = [row for row in stage.rows if row.get("verdict") == "failed" and row.get("reason_label") is not None]
    tables = any(row.get("checks") for row in rejected)
    exact = stage.has_all
    if not exact and not tables:
        more: Mapping[str, Any] = stage.metrics.get("label_counts") or Counter(row["reason_label"] for row in rejected)
        exact = "label_counts" in stage.metrics
    else:
        more = Counter({row["reason_label"]: 0 for row in rejected})
        for row in rejected:
            more[row["reason_label"]] += _fails_only(row, row["reason_label"])
    rows = [
        {"label": label, "more": count, "exact": exact, "at_most": not tables}
        for label, count in sorted(more.items(), key=lambda item: (-item[1], item[0]))
        if without in (None, label)
    ]
    if without is not None and not rows:
        rows = [{"label": without, "more": 0, "exact": exact, "at_most": not tables}]
    return rows


def _fails_only(row: Mapping[str, Any], label: str) -> bool:
    checks = row.get("checks")
    if not checks or label not in checks:
        return True
    return all(name == label or check.get("passed") is not False for name, check in checks.items())


def _threshold(
    run: RunRecord, stage: StageRecord, threshold: float, below: bool, name: str | None, near: int
) -> dict[str, Any]:
    went_on, decider = went_on_after(run, stage)
    if went_on is None and not stage.has_all and any(stage.lost(row) for row in stage.rows):
        # Of the candidates that are kept it is known what the stage itself decided.
        went_on, decider = stage.survivors, stage
    scored: list[dict[str, Any]] = []
    for row in stage.rows:
        value = (row.get("scores") or {}).get(name) if name else row.get("score")
        if is_number(value):
            passes = value <= threshold if below else value >= threshold
            now = None if went_on is None else row["candidate_id"] in went_on
            distance = threshold - value if below else value - threshold
            label = {"reason_label": row["reason_label"]} if row.get("reason_label") is not None else {}
            scored.append(
                {"candidate_id": row["candidate_id"], "score": value, "distance": distance, "passes": passes}
                | {"now": now} | label
            )  # fmt: skip
    gained = [row for row in scored if row["passes"] and row["now"] is False]
    lost = [row for row in scored if not row["passes"] and row["now"] is True]
    above = sorted((row for row in scored if row["passes"]), key=lambda row: row["distance"])[:near]
    under = sorted((row for row in scored if not row["passes"]), key=lambda row: -row["distance"])[:near]
    passing = sum(1 for row in scored if row["passes"])
    known = went_on is not None
    return {
        "value": threshold,
        "below": below,
        "score": name or "score",
        "passes": passing,
        "fails": len(scored) - passing,
        "unscored": len(stage.rows) - len(scored),
        "decided_by": decider.path if decider is not None else None,
        "now": sum(1 for row in scored if row["now"]) if known else None,
        "gained_count": len(gained) if known else None,
        "lost_count": len(lost) if known else None,
        "gained": _by_score(gained)[:MAX_NAMED] if known else None,
        "lost": _by_score(lost)[:MAX_NAMED] if known else None,
        "near": list(reversed(above)) + under,
    }


def _by_score(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: -row["distance"])
