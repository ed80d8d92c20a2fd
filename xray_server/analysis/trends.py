"""How figures moved over time, per pipeline, stage and version, added up from the rollups of hours."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xray_server.half_days import HALF_DAY_MS
from xray_server.rollups import HOUR_MS, read_half_days, read_rollups
from xray_server.stores.base import Bucket, Rollup, Store
from xray_server.summaries import mean, merge_summaries, quantile

BY = ("label", "name", "type", "version")
"""What rows can be told apart by: the pipeline's label, the stage's name and type, the pipeline's version."""

MAX_STRETCHES = 1000
MAX_ROWS = 20_000
"""Beyond them the earliest are left out, and the answer says so."""

_AUTOMATIC_MS = tuple(hours * HOUR_MS for hours in (1, 3, 6, 12, 24, 7 * 24, 28 * 24))
_AT_MOST = 62
_SCORES = ("score.p10", "score.p50", "score.p90")
_LABEL_COUNTS = "label_counts."
_SUMS = {"in": "input_count", "out": "output_count", "passed": "passed", "failed": "failed"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which trends.

    Args:
        since: From the hour of this time on, in milliseconds since 1970.
        until: Up to this time; the hour that it lies in is whole.
        bucket_ms: How long one stretch of time is: whole hours, in milliseconds. Stretches begin at multiples of it
            since 1970.
        by: What rows are told apart by, of :data:`BY`.
        label: Only of this pipeline; None means any. So it is with the next three.
        name: Only of stages of this name.
        type: Only of stages of this type.
        version: Only of this version of the pipeline.
        metrics: Metrics whose figures each row is to have besides, as rollups name them (``fail_ratio``,
            ``label_share.price_too_high``).
        most_labels: How many reason labels of each group are told apart, the most frequent ones over the whole time.
    """

    since: int
    until: int
    bucket_ms: int
    by: tuple[str, ...] = ("label", "name", "type")
    label: str | None = None
    name: str | None = None
    type: str | None = None
    version: str | None = None
    metrics: tuple[str, ...] = ()
    most_labels: int = 10


def fitting_bucket_ms(span_ms: int) -> int:
    """How long stretches of time should be so that a span has some dozens of them.

    Args:
        span_ms: The span in milliseconds.
    """
    return next((each for each in _AUTOMATIC_MS if span_ms <= _AT_MOST * each), _AUTOMATIC_MS[-1])


async def trends(store: Store, project: str, wanted: Wanted) -> dict[str, Any]:
    """How figures moved over time.

    Args:
        store: The store, open.
        project: The project.
        wanted: Which trends.

    Returns:
        ``rows`` by time and group, ``metrics`` (the names that rows could have besides) and ``complete`` (False where
        the earliest rows were left out). A row has ``from`` (milliseconds since 1970), the fields of ``by``, and:

        - ``stages`` and ``failures``: how many there were, and how many of them failed;
        - ``in``, ``out``, ``passed``, ``failed``: candidates, added up over the stages that have the figure, None
          where none has;
        - ``fail_ratio``: failed / (passed + failed) over all candidates of the stretch together;
        - ``labels``: reason label → ``count`` and ``share`` of the failed; ``other_labels``: the same of the others;
        - ``duration_ms``: the figures of the stages' durations; ``score``: the medians of the stages' score quantiles;
        - ``metrics``: the figures of those that were asked for. Figures are ``count``, ``mean``, ``min``, ``p10``,
          ``p50``, ``p90``, ``p99`` and ``max`` over the stages; quantiles are within 1 % (see ``summaries``).

    Raises:
        StoreError: The data could not be read.
    """
    read = read_half_days if wanted.bucket_ms % HALF_DAY_MS == 0 else read_rollups
    found = await read(store, project, label=wanted.label, name=wanted.name, since=wanted.since, until=wanted.until)
    return await asyncio.to_thread(trend, found, wanted)


def trend(rollups: Iterable[Rollup], wanted: Wanted) -> dict[str, Any]:
    """The trends that some rollups say; see :func:`trends`."""
    groups: dict[tuple[int, tuple[str | None, ...]], list[Rollup]] = {}
    names: set[str] = set()
    for rollup in rollups:
        if _is_wanted(rollup.bucket, wanted):
            start = rollup.bucket.hour // wanted.bucket_ms * wanted.bucket_ms
            key = tuple(getattr(rollup.bucket, each) for each in wanted.by)
            groups.setdefault((start, key), []).append(rollup)
            names.update(rollup.metrics)
    ordered = sorted(groups, key=lambda each: (each[0], tuple((word is not None, word or "") for word in each[1])))
    complete = len(ordered) <= MAX_ROWS
    kept = ordered[-MAX_ROWS:]
    counts = {each: _label_counts(groups[each]) for each in kept}
    frequent = _frequent_labels(counts, wanted.most_labels)
    rows = [
        {
            "from": each[0],
            **dict(zip(wanted.by, each[1], strict=True)),
            **_figures(groups[each], counts[each], frequent[each[1]], wanted),
        }
        for each in kept
    ]
    return {"rows": rows, "metrics": sorted(names), "complete": complete}


def _is_wanted(bucket: Bucket, wanted: Wanted) -> bool:
    pairs = ((wanted.type, bucket.type), (wanted.version, bucket.version))
    return all(asked is None or asked == found for asked, found in pairs)


def _frequent_labels(
    found: Mapping[tuple[int, tuple[str | None, ...]], Mapping[str, float]], most: int
) -> dict[tuple[str | None, ...], set[str]]:
    """Group → its most frequent reason labels over the whole time, so that a line of one does not come and go."""
    totals: dict[tuple[str | None, ...], dict[str, float]] = {}
    for (_, key), of_stretch in found.items():
        counts = totals.setdefault(key, {})
        for label, count in of_stretch.items():
            counts[label] = counts.get(label, 0) + count
    return {
        key: set(sorted(counts, key=lambda label: (-counts[label], label))[:most]) for key, counts in totals.items()
    }


def _figures(
    rollups: Sequence[Rollup], counts: Mapping[str, float], frequent: Collection[str], wanted: Wanted
) -> dict[str, Any]:
    """What the rollups of one stretch and group say together; ``counts`` are those of their reason labels."""
    row: dict[str, Any] = {
        "stages": sum(rollup.stage_count for rollup in rollups),
        "failures": sum(rollup.failure_count for rollup in rollups),
        **{name: _sum(rollups, metric) for name, metric in _SUMS.items()},
    }
    judged = (row["passed"] or 0) + (row["failed"] or 0)
    row["fail_ratio"] = (row["failed"] or 0) / judged if judged else None
    others = {label: count for label, count in counts.items() if label not in frequent}
    row["labels"] = {
        label: _label(counts[label], row["failed"])
        for label in sorted(counts.keys() - others.keys(), key=lambda label: (-counts[label], label))
    }
    row["other_labels"] = {"labels": len(others), **_label(sum(others.values()), row["failed"])} if others else None
    row["duration_ms"] = figures_of(rollups, "duration_ms")
    medians = {name.partition(".")[2]: figures_of(rollups, name) for name in _SCORES}
    scores = {name: found["p50"] for name, found in medians.items() if found is not None}
    row["score"] = scores or None
    if wanted.metrics:
        row["metrics"] = {name: figures_of(rollups, name) for name in wanted.metrics}
    return row


def figures_of(rollups: Iterable[Rollup], metric: str) -> dict[str, Any] | None:
    """The figures of a metric over the stages of some rollups, or None where no stage has it."""
    summary = merge_summaries(rollup.metrics[metric] for rollup in rollups if metric in rollup.metrics)
    if not summary["count"]:
        return None
    quantiles = {f"p{share}": quantile(summary, share / 100) for share in (10, 50, 90, 99)}
    bounds = {"min": summary["min"], **quantiles, "max": summary["max"]}
    return {"count": summary["count"], "mean": mean(summary), **bounds}


def _sum(rollups: Iterable[Rollup], metric: str) -> float | None:
    found = [rollup.metrics[metric].get("sum") for rollup in rollups if metric in rollup.metrics]
    numbers = [number for number in found if number is not None]
    return _whole(sum(numbers)) if numbers else None


def _label_counts(rollups: Iterable[Rollup]) -> dict[str, float]:
    counts: dict[str, float] = {}
    for rollup in rollups:
        for metric in rollup.metrics:
            if not metric.startswith(_LABEL_COUNTS):
                continue
            total = rollup.metrics[metric].get("sum")
            if total is not None:
                label = metric[len(_LABEL_COUNTS) :]
                counts[label] = counts.get(label, 0) + _whole(total)
    return counts


def _label(count: float, failed: float | None) -> dict[str, Any]:
    return {"count": count, "share": count / failed if failed else None}


def _whole(number: float) -> float:
    """A count as the whole number that it is, so that it is shown as one."""
    return int(number) if float(number).is_integer() else number
