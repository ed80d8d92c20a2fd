"""The candidate's passport: one id through every stage of a run, and where it was lost."""

from __future__ import annotations

from typing import Any

from xray_server.analysis.record import RunRecord, StageRecord, is_number, went_on_after

SHOWN = (
    "verdict", "reason_label", "reason_text", "score", "scores", "checks", "rank", "rank_before", "source", "data",
    "output",
)  # fmt: skip


def passport(run: RunRecord, candidate_id: str) -> dict[str, Any]:
    """The way of a candidate through a run.

    A step says ``seen`` (``yes``, ``no``, or ``not kept`` where the stage no longer holds all candidates and this one
    is not among those that it does), what was recorded of the candidate, whether it was ``lost`` there, and its
    ``cutoff`` (see :func:`cutoff`).

    ``outcome`` is one of

    - ``lost``: the last stage that saw it rejected it, left it out or did not pick it (``lost_at``);
    - ``dropped``: the last stage that saw it let it go on, and a later sibling that looked at others of that stage's
      candidates did not see it (``lost_at`` names the former, ``missing_from`` the latter);
    - ``kept``: no stage lost it;
    - ``unknown``: stages that do not hold all candidates stand between what is known and the answer;
    - ``never seen``.

    Args:
        run: The run, with its candidates.
        candidate_id: The candidate's id.

    Returns:
        ``run``, ``candidate_id``, ``outcome``, ``lost_at``, ``missing_from``, ``reason_label``, ``reason_text``,
        ``first_seen``, ``steps``.
    """
    steps = [_step(run, stage, candidate_id) for stage in run.stages]
    answer: dict[str, Any] = {
        "run": run.head(),
        "candidate_id": candidate_id,
        **_outcome(run, candidate_id),
        "first_seen": next((step["path"] for step in steps if step["seen"] == "yes"), None),
        "steps": steps,
    }
    return answer


def _step(run: RunRecord, stage: StageRecord, candidate_id: str) -> dict[str, Any]:
    row = stage.row(candidate_id)
    step: dict[str, Any] = {
        "stage_id": stage.id,
        "name": stage.name,
        "path": stage.path,
        "type": stage.type,
        "seen": "yes" if row is not None else "no" if stage.has_all else "not kept",
        "capture": stage.kept,
    }
    if row is None:
        return step
    step |= {name: row[name] for name in SHOWN if row.get(name) is not None}
    step["lost"] = stage.lost(row)
    times = len(stage.places[candidate_id])
    if times > 1:
        step["times"] = times
    found = cutoff(run, stage)
    if found is not None and is_number(row.get("score")):
        step["cutoff"] = {**found, "distance": row["score"] - found["score"]}
    return step


def cutoff(run: RunRecord, stage: StageRecord) -> dict[str, Any] | None:
    """The score that separated those who went on from the others.

    Only where it did: the lowest score of those who went on is not below the highest of the others. Who went on is
    decided by the stage itself, or by the next sibling that decides about its candidates.

    Args:
        run: The run, with its candidates.
        stage: One of its stages.

    Returns:
        ``score`` (the lowest that went on), ``best_lost`` (the highest that did not), ``decided_by`` (a path); None
        where the candidates are not all there, nobody decided, or scores did not decide.
    """
    went_on, decider = went_on_after(run, stage)
    if went_on is None or decider is None:
        return None
    scored = [(row["score"], row["candidate_id"] in went_on) for row in stage.rows if is_number(row.get("score"))]
    kept = [score for score, stays in scored if stays]
    lost = [score for score, stays in scored if not stays]
    if not kept or not lost or min(kept) < max(lost):
        return None
    return {"score": min(kept), "best_lost": max(lost), "decided_by": decider.path}


def _outcome(run: RunRecord, candidate_id: str) -> dict[str, Any]:
    """What became of the candidate; see :func:`passport`."""
    nothing = {"lost_at": None, "missing_from": None, "reason_label": None, "reason_text": None}
    seen = [stage for stage in run.stages if candidate_id in stage.places]
    if not seen:
        hidden = any(not stage.has_all for stage in run.stages)
        return {"outcome": "unknown" if hidden else "never seen", **nothing}
    last = _last(run, seen)
    row = last.row(candidate_id)
    assert row is not None
    later = _after(run, last)
    if any(not stage.has_all for stage in later):
        # It may have gone on to a stage that no longer says so. A verdict is a fact all the same.
        if last.lost(row) and row.get("verdict") == "failed":
            return {"outcome": "lost", **nothing, "lost_at": last.path, **_reason(row)}
        return {"outcome": "unknown", **nothing}
    if last.lost(row):
        return {"outcome": "lost", **nothing, "lost_at": last.path, **_reason(row)}
    others = last.survivors - {candidate_id}
    missing = next((stage for stage in later if others & set(stage.places)), None)
    if missing is not None:
        return {"outcome": "dropped", **nothing, "lost_at": last.path, "missing_from": missing.path}
    if not last.has_all and any(stage.rows for stage in later):
        # Whether a later stage looked at this one's candidates cannot be told from those that are kept.
        return {"outcome": "unknown", **nothing}
    return {"outcome": "kept", **nothing}


def _last(run: RunRecord, seen: list[StageRecord]) -> StageRecord:
    """The last of the stages at the outermost level; what is nested in it is part of its decision."""
    parents = {stage.id for stage in run.stages}
    outermost = [stage for stage in seen if stage.parent_id not in parents]
    return (outermost or seen)[-1]


def _after(run: RunRecord, stage: StageRecord) -> list[StageRecord]:
    """The stages that came after one, siblings only: what is nested belongs to its parent."""
    return run.later_siblings(stage)


def _reason(row: Any) -> dict[str, Any]:
    return {name: row.get(name) for name in ("reason_label", "reason_text")}
