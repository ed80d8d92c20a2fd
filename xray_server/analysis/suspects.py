"""Which step of a run is at fault: each stage against its own history, by statistics alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from types import MappingProxyType
from typing import Any

from xray.metrics import quantile
from xray_server.analysis.features import (
    TIMING,
    Feature,
    Profile,
    passed_of_expected,
    precedents,
    profiles,
    scored_of_expected,
)
from xray_server.analysis.record import RunRecord
from xray_server.analysis.statistics import robust_scale

FEWEST_RUNS = 8
"""With a shorter history nothing is said."""

ALARM_LEVELS = {"decisions": 0.02, "timing": 0.02}
"""The share of healthy runs that may be called suspicious, for what they decided and for how long they took.

They are judged apart: how long something takes depends on whatever else the machine does, and a history with a few
stalls in it would hide much of what goes wrong in decisions.
"""

_USUAL_QUANTILE = 0.95
_LEAST_USUAL = 2.0
"""Deviations of up to so many scales are usual whatever the history says."""

_STAGE_QUANTILE = 0.95
_EXPLAINED = 0.75
_ERROR_SCORE = 20.0
_ABSENT_AS_ZERO = ("label_counts.", "sources.", "check_fail_ratio.")


@dataclass(frozen=True, slots=True)
class _Deviation:
    """How far one feature of one stage is from what is usual.

    Args:
        name: The feature.
        feature: Its value in this run.
        excess: How many times farther than the usual deviation of the history's runs; above 1 is unusual.
        usual: The middle of the history, its 5 % and its 95 % quantile.
        runs: How many runs of the history have the feature.
    """

    name: str
    feature: Feature
    excess: float
    usual: tuple[float, float, float]
    runs: int


def analyze(
    run: RunRecord, history: Sequence[RunRecord], *, levels: Mapping[str, float] = MappingProxyType(ALARM_LEVELS)
) -> dict[str, Any]:
    """Rank the stages of a run by how unlike their history they are.

    1. Each stage of each run becomes a set of features (``features.py``). A feature's deviation is its distance from
       the median in units of a robust scale, divided by what the 95 % quantile of all runs deviates: its *excess*.
    2. A stage's score adds up its three largest excesses, on a logarithmic scale above 1; a run's is that of its
       worst stage. What was decided and how long it took are scored apart.
    3. Whether the run is ``suspicious`` is decided by its rank among the scores of the history's own runs, all
       computed in the same way with the run among them: a healthy run of the same kind ranks among the highest
       ``levels`` with no more than that probability, however its features are distributed (full conformal
       prediction: Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005). A run is suspicious
       where a stage raised, too.
    4. A stage is blamed less for what earlier siblings explain: its score is divided by the largest of theirs
       to the power of 0.75.

    Args:
        run: The run.
        history: Other runs of the same pipeline.
        levels: See 3.

    Returns:
        ``run``, ``history`` (how many runs), ``suspicious`` (None where the history is too short), ``p`` (the share of
        runs at least as unusual), ``faulty_stage`` (the path of the first suspect, or None where the run is not
        suspicious), ``reason``, ``confidence`` (from 0 to 1: the first suspect's share of all blame) and ``suspects``:
        stages that are unusual, the most suspicious first, each with ``path``, ``type``, ``score``, ``blame`` and
        ``evidence``.
    """
    answer: dict[str, Any] = {"run": run.head(), "history": len(history), "by": "statistics"}
    nothing: dict[str, Any] = {
        "suspicious": None,
        "p": None,
        "faulty_stage": None,
        "reason": None,
        "confidence": None,
        "suspects": [],
    }
    errors = _errors(run)
    if len(history) < FEWEST_RUNS and not errors:
        return answer | nothing | {"reason": f"Only {len(history)} other runs to compare with; it takes {FEWEST_RUNS}."}
    everything = [profiles(each) for each in (run, *history)]
    table = _Table(everything)
    p = {family: table.share_as_unusual(family) for family in ALARM_LEVELS} if len(history) >= FEWEST_RUNS else {}
    alarms = [family for family, share in p.items() if share <= max(levels[family], 1 / len(everything))]
    suspicious = bool(errors or alarms)
    suspects = _suspects(run, table, alarms or list(ALARM_LEVELS), errors)
    answer |= nothing | {"suspicious": suspicious, "p": p, "suspects": suspects}
    if suspicious and suspects:
        first = suspects[0]
        blame = sum(suspect["blame"] for suspect in suspects)
        answer |= {
            "faulty_stage": first["path"],
            "reason": "; ".join(evidence["text"] for evidence in first["evidence"][:3]),
            "confidence": round(first["blame"] / blame, 3),
        }
    return answer


class _Column:
    """One feature of one stage over all runs; None where a run does not have it."""

    def __init__(self, values: Sequence[Feature | None]) -> None:
        self.values = values
        given = [feature for feature in values if feature is not None]
        numbers = [feature.value for feature in given]
        self.middle, scale = robust_scale(numbers)
        self.scale = max(scale, given[0].least_scale)
        self.bad = given[0].bad
        self.ordered = sorted(numbers)
        self.usual_size = median([feature.size for feature in given])
        self.normal = max(quantile(sorted(map(self.distance, given)), _USUAL_QUANTILE), _LEAST_USUAL)

    def distance(self, feature: Feature) -> float:
        """How far a value is from the median, in scales, in the direction that means trouble.

        A share of fewer candidates than usual is farther from the median by chance alone: its scale grows as the
        standard deviation of such a share does.
        """
        scale = self.scale
        if 0 < feature.size < self.usual_size:
            scale *= math.sqrt(self.usual_size / feature.size)
        away = (feature.value - self.middle) / scale
        return max(away, 0.0) if self.bad == "high" else max(-away, 0.0) if self.bad == "low" else abs(away)


class _Table:
    """Every feature of every stage over all runs, of which the one that is asked about comes first."""

    def __init__(self, runs: Sequence[Mapping[str, Profile]]) -> None:
        self.runs = runs
        self.types: dict[str, str] = {}
        self.orders: dict[str, int] = {}
        for run in runs:
            for path, profile in run.items():
                self.types.setdefault(path, profile.type)
                self.orders.setdefault(path, profile.order)
        self.columns = {path: _columns(runs, path) for path in self.types}

    def deviations(self, place: int, family: str) -> dict[str, list[_Deviation]]:
        """How far one run's stages are from what is usual, by path, the largest first."""
        found: dict[str, list[_Deviation]] = {}
        for path, columns in self.columns.items():
            deviations = []
            for name, column in columns.items():
                feature = column.values[place]
                if feature is not None and (name in TIMING) == (family == "timing"):
                    excess = column.distance(feature) / column.normal
                    usual = (column.middle, quantile(column.ordered, 0.05), quantile(column.ordered, 0.95))
                    deviations.append(_Deviation(name, feature, excess, usual, len(column.ordered) - 1))
            deviations.sort(key=lambda deviation: -deviation.excess)
            # A stage is slow where it was so as a whole and for each of its candidates: the lesser of the two counts.
            found[path] = deviations[-1:] if family == "timing" else deviations
        return found

    def share_as_unusual(self, family: str) -> float:
        """The share of runs whose worst stage is at least as unusual as that of the first run."""
        scores = [
            {path: _score(found) for path, found in self.deviations(place, family).items()}
            for place in range(len(self.runs))
        ]
        # A stage whose figures jump about is not to hide what another one does.
        usual = {path: max(quantile(sorted(run[path] for run in scores), _STAGE_QUANTILE), 1.0) for path in self.types}
        totals = [max((run[path] / usual[path] for path in run), default=0.0) for run in scores]
        if max(scores[0].values(), default=0.0) <= 1:
            return 1.0
        return sum(1 for total in totals if total >= totals[0]) / len(totals)


def _columns(runs: Sequence[Mapping[str, Profile]], path: str) -> dict[str, _Column]:
    of_runs = [run[path].features if path in run else None for run in runs]
    names = dict.fromkeys(name for features in of_runs if features is not None for name in features)
    columns: dict[str, list[Feature | None]] = {}
    for name in names:
        known = next(features[name] for features in of_runs if features is not None and name in features)
        is_share = name.startswith(_ABSENT_AS_ZERO)
        columns[name] = [
            None if features is None else features.get(name, _none_of(name, known, features) if is_share else None)
            for features in of_runs
        ]
    columns["missing"] = [Feature(float(features is None), 0.1, "high") for features in of_runs]
    found = precedents(runs, path)
    columns["precedent"] = [None if likeness is None else Feature(likeness, 0.05, "low") for likeness in found]
    columns["passed_of_expected"] = passed_of_expected(runs, path)
    columns["scored_of_expected"] = scored_of_expected(runs, path)
    return {name: _Column(values) for name, values in columns.items() if any(value is not None for value in values)}


def _none_of(name: str, known: Feature, features: Mapping[str, Feature]) -> Feature:
    """A share of 0, of as many as the other shares of the same table are of."""
    table = name.partition(".")[0]
    size = next((each.size for other, each in features.items() if other.partition(".")[0] == table), 0)
    return Feature(0.0, known.least_scale, known.bad, size=size)


def _score(deviations: Sequence[_Deviation]) -> float:
    """The worst deviation, and a part of the next two that are unusual: what goes wrong shows in more than one way.

    Features that say nearly the same (``score.min`` and ``score.p50``) count as one.
    """
    worst: dict[str, float] = {}
    for deviation in deviations:
        group = deviation.name.partition(".")[0]
        worst[group] = max(worst.get(group, 0.0), _compressed(deviation.excess))
    first = sorted(worst.values(), reverse=True)[:3]
    return sum(value / (place + 1) for place, value in enumerate(first) if place == 0 or value > 1)


def _compressed(excess: float) -> float:
    """Up to 1 as it is; above it on a logarithmic scale, so that "never before" does not outdo all else by itself."""
    return excess if excess <= 1 else 1 + math.log2(excess)


def _suspects(
    run: RunRecord, table: _Table, families: Sequence[str], errors: Mapping[str, str]
) -> list[dict[str, Any]]:
    parents = {stage.path: stage.parent_id for stage in run.stages}
    by_family = [table.deviations(0, family) for family in families]
    explained: dict[str | None, float] = {}
    suspects: list[dict[str, Any]] = []
    for path in sorted(table.types, key=table.orders.__getitem__):
        score = max(_ERROR_SCORE if path in errors else 0.0, *(_score(found[path]) for found in by_family))
        parent = parents.get(path)
        if score > 1:
            unusual = [deviation for found in by_family for deviation in found[path] if deviation.excess > 1]
            evidence = [_evidence(deviation) for deviation in sorted(unusual, key=lambda each: -each.excess)]
            if path in errors:
                evidence.insert(0, {"feature": "error", "text": errors[path]})
            suspects.append(
                {"path": path, "type": table.types[path], "score": round(score, 4)}
                | {"blame": round(score / explained.get(parent, 1.0) ** _EXPLAINED, 4), "evidence": evidence}
            )
            explained[parent] = max(explained.get(parent, 1.0), score)
    return sorted(suspects, key=lambda suspect: -suspect["blame"])


def _evidence(deviation: _Deviation) -> dict[str, Any]:
    feature = deviation.feature
    shown = [math.exp(value) if feature.is_log else value for value in (feature.value, *deviation.usual)]
    if deviation.name.endswith("output_count"):
        shown = [value - 1 for value in shown]
    value, middle, low, high = shown
    name = deviation.name.removesuffix(".log")
    return {
        "feature": name,
        "value": value,
        "usual": middle,
        "from": low,
        "to": high,
        "excess": round(deviation.excess, 3),
        "runs": deviation.runs,
        "text": f"{name} {value:.4g}; usually {middle:.4g} ({low:.4g} to {high:.4g} in {deviation.runs} runs)",
    }


def _errors(run: RunRecord) -> dict[str, str]:
    """The stages that raised, innermost only: what they raised went through their parents too."""
    failed = [stage for stage in run.stages if stage.document.get("status") == "failure"]
    parents = {stage.parent_id for stage in failed}
    found = {}
    for stage in failed:
        if stage.id not in parents:
            error = stage.document.get("error") or {}
            found[stage.path] = f"{error.get('type')}: {error.get('message')}"
    return found
