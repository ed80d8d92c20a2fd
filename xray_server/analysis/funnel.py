"""The funnel of a run, and of a pipeline over time, with the conservation check.

What comes into a stage either goes out or is dropped: ``in = out + dropped``, where ``in`` counts the candidates that
came in and ``out`` those of them that went out. Stages are compared with their siblings only; what is nested in a
stage is part of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from xray_server.analysis.record import RunRecord, StageRecord, is_number
from xray_server.documents import Document

MAX_IDS = 20
"""Candidate ids that a flag names; it counts all of them."""

_TAKING = frozenset({"filtering", "scoring", "ranking", "selection"})
"""Types whose stages decide about what came in: one that gives back candidates out of none is no source of them."""


def funnel(run: RunRecord) -> dict[str, Any]:
    """The funnel of a run.

    Each stage has ``in`` (None where it takes no candidates), ``out``, ``dropped``, ``labels`` (reason label → how many
    were dropped for it, by the stage's figures, else by its candidates where all are there), ``undecided`` (candidates
    of a filter without a verdict), ``added`` (what went out without having come in), ``balance`` (``in - out - dropped
    - undecided``; 0 where the stage conserves its candidates, None where that cannot be told), ``checked``
    (``candidates`` where every candidate was counted, ``metrics`` where only the stage's figures could be, None where
    neither has it) and ``flags``:

    - ``duplicates``: ids that the stage has more than once;
    - ``changed_ids``: candidates that went out under an id that did not come in;
    - ``silent_drop``: candidates that this stage let go on and that no later sibling saw, although one saw others of
      them; by counts alone where candidates are not all kept: the next sibling took fewer than went out;
    - ``appeared``: candidates of a stage that no earlier sibling let go on;
    - ``not_returned``: candidates that a stage neither judged nor gave back;
    - ``unbalanced``: ``balance`` is not 0.

    Args:
        run: The run; without candidates it is checked by metrics alone.

    Returns:
        ``run``, ``stages`` in order, and ``conserved``: true, false, or None where some stage could not be checked.
    """
    rows = {stage.id: counts(stage) for stage in run.stages}
    for _, group in run.groups():
        for stage, flags in zip(group, _between(group), strict=True):
            rows[stage.id]["flags"] += flags
    ordered = [rows[stage.id] for stage in run.stages]
    decided = [row for row in ordered if row["in"] is not None]
    flagged = any(flag["flag"] in _BREAKS for row in ordered for flag in row["flags"])
    conserved = False if flagged else None if any(row["balance"] is None for row in decided) else True
    return {"run": run.head(), "conserved": conserved, "stages": ordered}


_BREAKS = frozenset({"silent_drop", "appeared", "unbalanced", "changed_ids"})


def counts(stage: StageRecord) -> dict[str, Any]:
    """What went into one stage and what became of it; see :func:`funnel`."""
    row: dict[str, Any] = {
        "stage_id": stage.id,
        "parent_id": stage.parent_id,
        "name": stage.name,
        "path": stage.path,
        "type": stage.type,
        "status": stage.document.get("status"),
        "duration_ms": stage.document.get("duration_ms"),
        "in": _number(stage.metrics.get("input_count")),
        "out": _number(stage.metrics.get("output_count")),
        "capture": stage.kept,
        "flags": [],
    }
    if row["in"] == 0 and row["out"] and stage.type not in _TAKING:
        row["in"] = None  # it brings candidates up, as a retrieval does
    added = _number(stage.facts.get("unknown_outputs")) or 0
    row |= {"dropped": None, "labels": _labels(stage), "undecided": 0, "added": added, "balance": None, "checked": None}
    if row["in"] is not None and row["out"] is not None:
        _balance(row, stage, added)
    row["flags"] += _own_flags(stage, row)
    return row


def _balance(row: dict[str, Any], stage: StageRecord, added: int) -> None:
    if stage.rows and stage.has_all:
        came = [candidate for candidate in stage.rows if not _was_added(candidate, stage)]
        dropped = sum(1 for candidate in stage.rows if _is_dropped(candidate, stage))
        undecided = len([candidate for candidate in came if _is_undecided(candidate, stage)])
        row |= {"dropped": dropped, "undecided": undecided, "checked": "candidates"}
    elif is_number(stage.metrics.get("failed")):
        row |= {"dropped": stage.metrics["failed"], "checked": "metrics"}
        row["undecided"] = max(stage.seen - stage.metrics["failed"] - (row["out"] or 0), 0)
    elif row["in"] == row["out"] == 0:
        row |= {"dropped": 0, "checked": "metrics"}
    if row["dropped"] is not None:
        row["balance"] = row["in"] + added - row["out"] - row["dropped"] - row["undecided"]


def _labels(stage: StageRecord) -> dict[str, float]:
    known = stage.metrics.get("label_counts")
    if isinstance(known, Mapping):
        return {label: count for label, count in known.items() if is_number(count)}
    if not stage.has_all:
        return {}
    dropped = (row["reason_label"] for row in stage.rows if row.get("reason_label") and _is_dropped(row, stage))
    return dict(Counter(map(str, dropped)).most_common())


def _was_added(candidate: Mapping[str, Any], stage: StageRecord) -> bool:
    return stage.type == "ranking" and candidate.get("rank_before") is None


def _is_dropped(candidate: Mapping[str, Any], stage: StageRecord) -> bool:
    if stage.type == "filtering":
        return candidate.get("verdict") == "failed"
    if stage.type == "scoring":
        return False
    return stage.lost(candidate)


def _is_undecided(candidate: Mapping[str, Any], stage: StageRecord) -> bool:
    return stage.type == "filtering" and candidate.get("verdict") is None


def _own_flags(stage: StageRecord, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    flags: list[dict[str, Any]] = []
    repeated = {candidate_id: len(places) - 1 for candidate_id, places in stage.places.items() if len(places) > 1}
    count = sum(repeated.values())
    if not stage.has_all:
        known = (stage.metrics.get("duplicates"), stage.facts.get("duplicate_ids"), count)
        count = max(int(value) for value in known if is_number(value))
    if count:
        flags.append(_flag("duplicates", count, repeated))
    if row["added"]:
        flags.append(_flag("changed_ids", row["added"], ()))
    silent = [stage.facts.get(fact) for fact in ("not_returned", "dropped_silently")]
    flags += [_flag("not_returned", count, ()) for count in silent if is_number(count)]
    if row["balance"]:
        flags.append(_flag("unbalanced", abs(row["balance"]), ()))
    return flags


def _between(group: Sequence[StageRecord]) -> list[list[dict[str, Any]]]:
    """What was lost or came up between each of some siblings and the others, in their order."""
    found: list[list[dict[str, Any]]] = [[] for _ in group]
    all_there = all(stage.has_all for stage in group)
    seen_later: set[str] = set()
    for place in range(len(group) - 1, -1, -1):
        stage = group[place]
        if stage.rows and all_there:
            if not seen_later.isdisjoint(stage.places):
                silent = sorted(stage.survivors - seen_later)
                if silent:
                    found[place].append(_flag("silent_drop", len(silent), silent))
        elif place + 1 < len(group):
            found[place] += _by_counts(stage, group[place + 1])
        seen_later.update(stage.places)
    if all_there:
        seen_earlier: set[str] = set()
        offered: set[str] = set()
        for place, stage in enumerate(group):
            counted = is_number(stage.metrics.get("input_count"))
            if counted and not seen_earlier.isdisjoint(stage.places):
                new = sorted({row["candidate_id"] for row in stage.rows if not _was_added(row, stage)} - offered)
                if new:
                    found[place].append(_flag("appeared", len(new), new))
            seen_earlier.update(stage.places)
            offered |= stage.survivors
    return found


def _by_counts(stage: StageRecord, following: StageRecord) -> list[dict[str, Any]]:
    """The same by how many went out of a stage and came into the next one."""
    gone, came = stage.metrics.get("output_count"), following.metrics.get("input_count")
    if not is_number(gone) or not is_number(came) or came == gone:
        return []
    name = "silent_drop" if came < gone else "appeared"
    return [{**_flag(name, abs(gone - came), ()), "by": "counts", "between": [stage.path, following.path]}]


def _flag(name: str, count: float, ids: Iterable[str]) -> dict[str, Any]:
    return {"flag": name, "count": count, "ids": list(ids)[:MAX_IDS]}


def over_time(stages: Iterable[Document], bucket_ms: int) -> list[dict[str, Any]]:
    """The funnels of a pipeline's runs, added up by time and stage.

    Args:
        stages: The stages' documents, in order of their runs' start.
        bucket_ms: How long one stretch of time is, in milliseconds; stretches begin at multiples of it since 1970.

    Returns:
        One row for each stretch and stage, in order: ``from`` (milliseconds since 1970), ``path``, ``type``, ``runs``,
        ``in``, ``out`` and ``failed`` added up over those that have the figure (``without_counts`` says how many of
        the stages have none), ``fail_ratio`` over all of them, ``failures``, ``unbalanced`` (stages whose figures do
        not add up), ``label_counts``.
    """
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    orders: dict[tuple[int, str], list[int]] = {}
    runs: dict[tuple[int, str], set[str]] = {}
    for document in stages:
        began = (document.get("pipeline") or {}).get("started_at") or document.get("started_at")
        if began is None:
            continue
        stage = StageRecord(document)
        key = (began // bucket_ms * bucket_ms, stage.path)
        row = rows.setdefault(key, _empty_row(key, stage))
        found = counts(stage)
        runs.setdefault(key, set()).add(document["run_id"])
        orders.setdefault(key, []).append(document.get("order") or 0)
        row["failures"] += document.get("status") == "failure"
        row["unbalanced"] += any(flag["flag"] == "unbalanced" for flag in found["flags"])
        if found["in"] is None and found["out"] is None:
            row["without_counts"] += 1
        row["in"] += found["in"] or 0
        row["out"] += found["out"] or 0
        for name in ("failed", "passed"):
            row[name] += stage.metrics[name] if is_number(stage.metrics.get(name)) else 0
        for label, count in found["labels"].items():
            row["label_counts"][label] = row["label_counts"].get(label, 0) + count
    for key, row in rows.items():
        judged = row["failed"] + row["passed"]
        row["runs"] = len(runs[key])
        row["fail_ratio"] = row["failed"] / judged if judged else None
    return [rows[key] for key in sorted(rows, key=lambda key: (key[0], min(orders[key]), key[1]))]


def _empty_row(key: tuple[int, str], stage: StageRecord) -> dict[str, Any]:
    zeros = dict.fromkeys(("runs", "in", "out", "passed", "failed", "failures", "unbalanced", "without_counts"), 0)
    return {"from": key[0], "path": stage.path, "type": stage.type, **zeros, "fail_ratio": None, "label_counts": {}}


def _number(value: Any) -> Any:
    return value if is_number(value) else None
