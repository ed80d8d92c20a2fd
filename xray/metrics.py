"""What a metric is, and the statistics that the built-in stage types share.

Everything here is pure standard library: the same functions run in the SDK (where candidates are not all kept)
and in the service.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

MetricKind = Literal["number", "table", "data"]
DeclaredKind = Literal["number", "table", "data", "column"]
"""What a sender may declare of a type that the service may not have: its metrics, and its own candidate columns."""

MetricValue = Any  # a number, a table {name: number}, or JSON data


@dataclass(frozen=True, slots=True)
class Metric:
    """The declaration of one metric of a stage type.

    Args:
        name: snake_case name; ``fail_ratio`` is asked for as ``$failRatio`` or ``$fail_ratio``.
        unit: What the number counts: ``ratio``, ``candidates``, ``ms``, ``score``.
        meaning: One sentence, shown by help texts and pages.
        kind: ``number``; ``table`` (name → number, reached as ``$labelCounts.some_label``); or ``data``
            (JSON that is shown, not searched).
        indexed: Whether questions and sorting on it are served by the store's index over metrics.
        bad: The direction that means trouble, or None where neither does.
    """

    name: str
    unit: str
    meaning: str
    kind: MetricKind = "number"
    indexed: bool = True
    bad: Literal["high", "low"] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The declaration as JSON, as it travels with a plugin's metrics."""
        return {
            "name": self.name,
            "unit": self.unit,
            "meaning": self.meaning,
            "kind": self.kind,
            "indexed": self.indexed,
            "bad": self.bad,
        }


def folded(name: str) -> str:
    """A metric's name without what questions may spell it with: ``_`` and case."""
    return name.replace("_", "").lower()


RESERVED_NAMES = frozenset({
    "accumulator", "all", "and", "binary", "bitsallclear", "bitsallset", "bitsanyclear", "bitsanyset", "box", "center",
    "centersphere", "code", "comment", "date", "elemmatch", "eq", "exists", "explain", "expr", "function",
    "geointersects", "geometry", "geowithin", "gt", "gte", "hint", "in", "jsonschema", "literal", "lt", "lte",
    "maxdistance", "meta", "mindistance", "mod", "natural", "ne", "near", "nearsphere", "nin", "nor", "not",
    "numberdecimal", "numberdouble", "numberint", "numberlong", "oid", "options", "or", "orderby", "param", "polygon",
    "query", "rand", "regex", "samplerate", "search", "size", "slice", "text", "timestamp", "type", "uniquedocs",
    "uuid", "vectorsearch", "where", "within",
})  # fmt: skip
"""Names that no metric may have, folded: those of the query language's operators and of MongoDB's others."""


COMMON_METRICS = (
    Metric("duration_ms", "ms", "Time from the call to its return, by a monotonic clock.", bad="high"),
    Metric("input_count", "candidates", "Candidates that came in."),
    Metric("output_count", "candidates", "Candidates that went out."),
)
"""The metrics that every stage has, whatever its type; X-Ray fills ``duration_ms`` itself."""


CRITERIA_METRICS = (
    Metric("checks_failed", "candidates", "Candidates that failed each check of an evaluation table.", kind="table"),
    Metric("check_fail_ratio", "ratio", "The share of candidates that failed each check.", kind="table", bad="high"),
    Metric("scores_mean", "score", "The mean of each of several scores.", kind="table"),
    Metric("scores_p50", "score", "The median of each of several scores.", kind="table"),
)
"""The metrics of stages whose candidates have several checks or scores; X-Ray computes them for every type."""

METRICS_OF_ALL_TYPES = COMMON_METRICS + CRITERIA_METRICS


def criteria_metrics(checks: Sequence[Any], scores: Sequence[Any]) -> dict[str, MetricValue]:
    """The metrics of ``CRITERIA_METRICS``.

    ``check_fail_ratio`` = failed / judged for each check; ``scores_p50`` is that of :func:`quantile`.

    Args:
        checks: One ``{name: {"passed": …}}`` a candidate, or None.
        scores: One ``{name: number}`` a candidate, or None.

    Returns:
        Only the metrics for which there is something to count.
    """
    judged: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for table in checks:
        for name, check in (table or {}).items():
            if check.get("passed") is not None:
                judged[name] += 1
                failed[name] += not check["passed"]
    numbers: dict[str, list[float]] = {}
    for table in scores:
        for name, number in (table or {}).items():
            if type(number) in (int, float) and math.isfinite(number):
                numbers.setdefault(name, []).append(number)
    metrics: dict[str, MetricValue] = {}
    if judged:
        metrics["checks_failed"] = {name: failed[name] for name in judged}
        metrics["check_fail_ratio"] = {name: failed[name] / count for name, count in judged.items()}
    if numbers:
        metrics["scores_mean"] = {name: math.fsum(n / len(given) for n in given) for name, given in numbers.items()}
        metrics["scores_p50"] = {name: quantile(sorted(given), 0.5) for name, given in numbers.items()}
    return metrics


def quantile(ordered: Sequence[float], q: float) -> float:
    """The q-quantile by linear interpolation between order statistics.

    Definition 7 of Hyndman and Fan, "Sample Quantiles in Statistical Packages", The American Statistician 50(4),
    1996: the default of NumPy and R.

    Args:
        ordered: At least one number, in ascending order.
        q: Between 0 and 1.
    """
    position = (len(ordered) - 1) * q
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    low, high = ordered[below], ordered[above]
    return low if low == high else low + (high - low) * (position - below)


def describe_scores(scores: Iterable[float | None]) -> dict[str, Any]:
    """The score metrics that scoring and retrieval share.

    ``std`` is the population standard deviation; ``ties`` counts the scores that equal an earlier one;
    ``top_margin`` is the highest score minus the second highest; quantiles are those of :func:`quantile`.

    Args:
        scores: One score a candidate; None (and NaN) counts as a null and takes part in nothing else.

    Returns:
        ``nulls`` and, where there is a score, ``score`` (a table), ``histogram``, ``ties`` and, from two on,
        ``top_margin``.
    """
    given = list(scores)
    ordered = sorted(float(s) for s in given if s is not None and math.isfinite(s))
    result: dict[str, Any] = {"nulls": len(given) - len(ordered)}
    if not ordered:
        return result
    # Scaling first keeps the sum finite for scores near the limits of a double.
    mean = math.fsum(s / len(ordered) for s in ordered)
    deviations = [s - mean for s in ordered]
    result["score"] = {
        "min": ordered[0],
        "max": ordered[-1],
        "mean": mean,
        "std": math.hypot(*deviations) / math.sqrt(len(ordered)),
        "p10": quantile(ordered, 0.10),
        "p50": quantile(ordered, 0.50),
        "p90": quantile(ordered, 0.90),
        "p99": quantile(ordered, 0.99),
    }
    result["histogram"] = histogram(ordered)
    result["ties"] = len(ordered) - len(set(ordered))
    if len(ordered) > 1:
        result["top_margin"] = ordered[-1] - ordered[-2]
    return result


def histogram(ordered: Sequence[float], bins: int = 20) -> dict[str, list[float] | list[int]]:
    """Counts in bins of equal width between the lowest and the highest value.

    Args:
        ordered: At least one finite number, in ascending order.
        bins: How many bins; one is made where all values are equal.

    Returns:
        ``edges`` (one more than bins) and ``counts``; a bin holds its lower edge, the last one its upper edge too.
    """
    low, high = ordered[0], ordered[-1]
    width = high - low
    if width <= 0 or not math.isfinite(width):
        return {"edges": [low, high], "counts": [len(ordered)]}
    counts = [0] * bins
    for value in ordered:
        counts[min(int((value - low) / width * bins), bins - 1)] += 1
    return {"edges": [low + width * i / bins for i in range(bins)] + [high], "counts": counts}


def kendall_tau(before: Sequence[float], after: Sequence[float]) -> float | None:
    """Kendall's rank correlation tau-b, corrected for ties.

    Kendall, "The Treatment of Ties in Ranking Problems", Biometrika 33(3), 1945, counted in O(n log n) after Knight,
    "A Computer Method for Calculating Kendall's Tau with Ungrouped Data", JASA 61(314), 1966.

    Args:
        before: One rank an item.
        after: The rank of the same items, in the same order.

    Returns:
        Between -1 and 1, or None with fewer than two items or where one side is all ties.
    """
    n = len(before)
    if n < 2:
        return None
    pairs = sorted(zip(before, after, strict=True))
    total = n * (n - 1) // 2
    ties_before = _tied_pairs(Counter(before))
    ties_after = _tied_pairs(Counter(after))
    ties_both = _tied_pairs(Counter(pairs))
    _, swaps = _sort_counting_swaps([b for _, b in pairs])
    denominator = math.sqrt((total - ties_before) * (total - ties_after))
    if denominator == 0:
        return None
    return (total - ties_before - ties_after + ties_both - 2 * swaps) / denominator


def _tied_pairs(counts: Counter[Any]) -> int:
    return sum(c * (c - 1) // 2 for c in counts.values())


_INSERTED_UP_TO = 2048
"""Values that are put in order one by one: up to here moving the rest along costs less than merging in Python does."""


def _sort_counting_swaps(values: list[float]) -> tuple[list[float], int]:
    if len(values) <= _INSERTED_UP_TO:
        ordered: list[float] = []
        count = 0
        for value in values:
            place = bisect_right(ordered, value)
            count += len(ordered) - place
            ordered.insert(place, value)
        return ordered, count
    middle = len(values) // 2
    left, swaps_left = _sort_counting_swaps(values[:middle])
    right, swaps_right = _sort_counting_swaps(values[middle:])
    merged: list[float] = []
    swaps = swaps_left + swaps_right
    i = j = 0
    while i < len(left) and j < len(right):
        if right[j] < left[i]:
            merged.append(right[j])
            swaps += len(left) - i
            j += 1
        else:
            merged.append(left[i])
            i += 1
    return merged + left[i:] + right[j:], swaps
