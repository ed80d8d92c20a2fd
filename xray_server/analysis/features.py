"""What can be said of a stage in numbers that are comparable from run to run.

A feature describes what a stage itself did, as far as possible: shares in place of counts where something came in, so
that a stage that merely got fewer candidates from a faulty one before it does not stand out. Each has a least scale,
below which a deviation is none whatever the history says.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from xray.metrics import kendall_tau
from xray_server.analysis.record import RunRecord, StageRecord, is_number

_WORD = re.compile(r"[^\W_]{2,}")
_MAX_CHARS = 20_000

FEWEST_KNOWN = 3
"""Of fewer candidates that were seen before nothing is concluded."""

TIMING = ("duration_ms", "duration_per_candidate_ms")
"""The features that say how long a stage took."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature of one stage.

    Args:
        value: The number.
        least_scale: The deviation that is too small to mean anything.
        bad: The direction that means trouble, or None where either does.
        is_log: Whether the value is a logarithm (base e) of what people would rather see.
        size: Of a share of candidates, of how many; else 0.
    """

    value: float
    least_scale: float
    bad: str | None = None
    is_log: bool = False
    size: int = 0


@dataclass(slots=True)
class Profile:
    """What a stage of one run looked like.

    Args:
        path: The stage's path.
        type: Its type.
        order: Its place in the run.
        features: Name → feature.
        generated: Of a stage that generates the candidates' texts; else empty.
        input_words: The words of what the run and the stage were given.
        passed: Of a stage that judges: candidate → whether it went on.
        scores: Candidate → its score.
        status: ``success``, ``failure`` or None.
        error: What was raised, in words.
    """

    path: str
    type: str
    order: int
    features: dict[str, Feature] = field(default_factory=dict)
    generated: tuple[str, ...] = ()
    input_words: frozenset[str] = frozenset()
    passed: Mapping[str, bool] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    status: str | None = None
    error: str | None = None


def columns_for(stage_type: str | None) -> tuple[str, ...]:
    """What a profile is made of, of each candidate: of a history's runs the rest need not be read."""
    return ("verdict", "score", "rank", "data") if stage_type == "generation" else ("verdict", "score", "rank")


def profiles(run: RunRecord) -> dict[str, Profile]:
    """The profile of each stage of a run, by path."""
    nested: dict[str, float] = {}
    for stage in run.stages:
        if stage.parent_id is not None and is_number(stage.document.get("duration_ms")):
            nested[stage.parent_id] = nested.get(stage.parent_id, 0.0) + stage.document["duration_ms"]
    found: dict[str, Profile] = {}
    for order, stage in enumerate(run.stages):
        if stage.path not in found:
            found[stage.path] = _profile(run, stage, order, nested.get(stage.id, 0.0))
    return found


def _profile(run: RunRecord, stage: StageRecord, order: int, nested_ms: float) -> Profile:
    error = stage.document.get("error")
    profile = Profile(stage.path, stage.type, order, status=stage.document.get("status"))
    if isinstance(error, dict):
        profile.error = f"{error.get('type')}: {error.get('message')}"
    features = profile.features
    features |= _timing(stage, nested_ms)
    features |= _flow(stage, _offered(run, stage))
    features |= _shares(stage)
    features |= _scores(stage)
    features |= _order(stage)
    ids, columns = stage.columns.candidate_id, stage.columns
    scored = zip(ids, columns.column("score"), strict=True)
    profile.scores = {candidate_id: score for candidate_id, score in scored if is_number(score)}
    if stage.type == "filtering":
        judged = zip(ids, columns.column("verdict"), strict=True)
        profile.passed = {candidate_id: verdict != "failed" for candidate_id, verdict in judged if verdict is not None}
    if stage.type == "generation":
        profile.input_words = words_of(run.document.get("input"), stage.document.get("input"))
        profile.generated = tuple(text_of(row) for row in stage.rows)
        features |= _generation(stage, profile)
    return profile


def _timing(stage: StageRecord, nested_ms: float) -> dict[str, Feature]:
    """The time a stage took itself, as a whole and for each candidate; both must stand out to count."""
    took = stage.document.get("duration_ms")
    if not is_number(took):
        return {}
    own = max(took - nested_ms, 0.001)
    size = max(stage.seen, stage.metrics.get("output_count") or 0)
    return {
        "duration_ms": Feature(math.log(own), 0.35, "high", is_log=True),
        "duration_per_candidate_ms": Feature(math.log(own / (10 + size)), 0.35, "high", is_log=True),
    }


def _flow(stage: StageRecord, offered: float | None) -> dict[str, Feature]:
    came, went = stage.metrics.get("input_count"), stage.metrics.get("output_count")
    found: dict[str, Feature] = {}
    if is_number(went):
        if not is_number(came):
            found["output_count"] = Feature(math.log1p(went), 0.2, is_log=True)
            # Who was given nothing has nothing to make something of.
            found["made_nothing"] = Feature(float(went == 0 and offered != 0), 0.1, "high")
        elif came > 0:
            found["out_of_in"] = Feature(went / came, 0.05, size=int(came))
            if stage.type == "filtering":
                # Near 0 and 1 a ratio hardly moves, whatever became of the few that remain.
                found["pass_odds"] = Feature(math.log((went + 0.5) / (came - went + 0.5)), 0.5)
    requested = stage.metrics.get("requested")
    if is_number(requested) and requested > 0 and is_number(went):
        found["returned_of_requested"] = Feature(went / requested, 0.05, "low")
    told = [stage.facts.get(name) for name in ("unknown_outputs", "not_returned", "dropped_silently")]
    lost = sum(count for count in told if is_number(count))
    found["unaccounted"] = Feature(lost / max(stage.seen, 1), 0.02, "high")
    return found


def _offered(run: RunRecord, stage: StageRecord) -> float | None:
    """How many candidates the sibling before a stage gave, where it says so."""
    earlier = [other for other in run.stages[: run.stages.index(stage)] if other.parent_id == stage.parent_id]
    given = earlier[-1].metrics.get("output_count") if earlier else None
    return given if is_number(given) else None


def _shares(stage: StageRecord) -> dict[str, Feature]:
    metrics = stage.metrics
    size = max(stage.seen, 1)
    found: dict[str, Feature] = {}
    for name in ("duplicates", "empty", "nulls", "unknown_labels", "unlabelled"):
        if is_number(metrics.get(name)):
            found[f"{name}_share"] = Feature(metrics[name] / size, 0.02, "high", size=size)
    repeated = len(stage.columns) - len(set(stage.columns.candidate_id))
    found["repeated_ids_share"] = Feature(
        max(repeated, stage.facts.get("duplicate_ids") or 0) / size, 0.02, "high", size=size
    )
    for name in ("label_counts", "sources"):
        table = metrics.get(name)
        if isinstance(table, dict):
            for key, count in table.items():
                if is_number(count):
                    found[f"{name}.{key}"] = Feature(count / size, 0.03, size=size)
            if name == "sources":
                found["distinct_sources"] = Feature(float(len(table)), 0.25)
    for key, ratio in (metrics.get("check_fail_ratio") or {}).items():
        if is_number(ratio):
            found[f"check_fail_ratio.{key}"] = Feature(ratio, 0.03)
    return found


def _scores(stage: StageRecord) -> dict[str, Feature]:
    """The scores' place and spread; on a logarithmic scale where all are positive."""
    score = stage.metrics.get("score")
    table: Mapping[str, Any] = score if isinstance(score, dict) else {}
    lowest = table.get("min")
    is_positive = is_number(lowest) and lowest > 0
    found: dict[str, Feature] = {}
    for name in ("min", "p50", "mean", "max", "std"):
        value = table.get(name)
        if is_number(value) and is_positive and value > 0:
            found[f"score.{name}.log"] = Feature(math.log(value), 0.05, is_log=True)
        elif is_number(value):
            found[f"score.{name}"] = Feature(value, max(abs(value), 1e-6) * 0.01)
    return found


def _order(stage: StageRecord) -> dict[str, Feature]:
    """How the order goes with the scores, and how far it is from what came in."""
    metrics = stage.metrics
    found: dict[str, Feature] = {}
    if is_number(metrics.get("kendall_tau")):
        found["kendall_tau"] = Feature(metrics["kendall_tau"], 0.1)
    if stage.type != "ranking":
        return found
    if is_number(metrics.get("top_margin")):
        found["top_margin_negative"] = Feature(float(metrics["top_margin"] < 0), 0.1, "high")
    both = zip(stage.columns.column("rank"), stage.columns.column("score"), strict=True)
    ranked = [(rank, score) for rank, score in both if is_number(rank) and is_number(score)]
    tau = kendall_tau([rank for rank, _ in ranked], [score for _, score in ranked])
    if tau is not None:
        found["rank_with_score"] = Feature(tau, 0.05)
    return found


def _generation(stage: StageRecord, profile: Profile) -> dict[str, Feature]:
    found: dict[str, Feature] = {}
    if is_number(stage.metrics.get("mean_length")):
        found["mean_length"] = Feature(math.log1p(stage.metrics["mean_length"]), 0.15, is_log=True)
    grounded = [_overlap(words_of(text), profile.input_words) for text in profile.generated if text]
    if grounded and profile.input_words:
        found["grounded_in_input"] = Feature(sum(grounded) / len(grounded), 0.05, "low")
        found["least_grounded"] = Feature(min(grounded), 0.05, "low")
    return found


def precedents(runs: Sequence[Mapping[str, Profile]], path: str) -> list[float | None]:
    """How alike the inputs were for which the same was generated before, of each run the least of its candidates.

    For each generated candidate: the greatest likeness (Jaccard's coefficient of the words) between this run's input
    and the input of another run that generated the same; 0 where no other did. Runs that generated nothing, and
    stages that hardly ever generate the same again, have none.

    Args:
        runs: The profiles of all runs.
        path: The stage.
    """
    by_text: dict[str, list[tuple[int, frozenset[str]]]] = {}
    for place, run in enumerate(runs):
        if path in run:
            for text in set(run[path].generated):
                by_text.setdefault(text, []).append((place, run[path].input_words))
    repeated = sum(1 for places in by_text.values() if len(places) > 1)
    if repeated * 2 < len(by_text):
        return [None] * len(runs)
    found: list[float | None] = []
    for place, run in enumerate(runs):
        profile = run.get(path)
        if profile is None or not profile.generated or not profile.input_words:
            found.append(None)
            continue
        likeness = [
            max((_jaccard(profile.input_words, given) for other, given in by_text[text] if other != place), default=0.0)
            for text in set(profile.generated)
        ]
        found.append(min(likeness))
    return found


def passed_of_expected(runs: Sequence[Mapping[str, Profile]], path: str) -> list[Feature | None]:
    """The share of candidates that passed, less the share that their own past lets expect, of each run.

    Over the candidates that the stage judged in other runs too, of each the share of these in which it passed. A
    filter that is stricter than it was shows here, and one that merely got worse candidates does not.

    Args:
        runs: The profiles of all runs.
        path: The stage.
    """
    judged: Counter[str] = Counter()
    passes: Counter[str] = Counter()
    for run in runs:
        if path in run:
            judged.update(run[path].passed)
            passes.update(candidate for candidate, passed in run[path].passed.items() if passed)
    found: list[Feature | None] = []
    for run in runs:
        own = run[path].passed if path in run else {}
        known = [(passed, candidate) for candidate, passed in own.items() if judged[candidate] > 1]
        if len(known) < FEWEST_KNOWN:
            found.append(None)
            continue
        expected = math.fsum((passes[each] - passed) / (judged[each] - 1) for passed, each in known) / len(known)
        actual = sum(passed for passed, _ in known) / len(known)
        found.append(Feature(actual - expected, 0.05))
    return found


def scored_of_expected(runs: Sequence[Mapping[str, Profile]], path: str) -> list[Feature | None]:
    """The median distance of the candidates' scores from what the same candidates scored in other runs, of each run.

    Args:
        runs: The profiles of all runs.
        path: The stage.
    """
    scores: dict[str, list[float]] = {}
    for run in runs:
        if path in run:
            for candidate, score in run[path].scores.items():
                scores.setdefault(candidate, []).append(score)
    usual = {candidate: median(given) for candidate, given in scores.items() if len(given) > 2}
    size = median([abs(score) for score in usual.values()]) if usual else 0.0
    found: list[Feature | None] = []
    for run in runs:
        own = run[path].scores if path in run else {}
        away = [score - usual[candidate] for candidate, score in own.items() if candidate in usual]
        found.append(Feature(median(away), max(size, 1e-6) * 0.02) if len(away) >= FEWEST_KNOWN else None)
    return found


def text_of(row: Mapping[str, Any]) -> str:
    """What a generated candidate says: its text where it is one, else what its fields say, else its id."""
    data = row.get("data")
    if isinstance(data, str):
        return data
    if isinstance(data, dict):
        text = data.get("text")
        return text if isinstance(text, str) else " ".join(_texts(data))[:_MAX_CHARS]
    return str(row["candidate_id"])


def words_of(*values: Any) -> frozenset[str]:
    """The words in some JSON values, in lower case, without the names of fields."""
    joined = " ".join(text for value in values for text in _texts(value))
    return frozenset(_WORD.findall(joined[:_MAX_CHARS].lower()))


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _overlap(some: frozenset[str], others: frozenset[str]) -> float:
    return len(some & others) / len(some) if some else 0.0


def _jaccard(some: frozenset[str], others: frozenset[str]) -> float:
    union = len(some | others)
    return len(some & others) / union if union else 0.0
