"""Half days: what trends over months are added up from, so that they read no hours.

The sums of a half day are made from its hours once these are kept. A store marks a half day before it keeps one of its
hours (see ``Store.half_days``), so that a reader knows which ones to take: those that are not marked and none of whose
hours is. Of the others it reads the hours. Sums of sums are exact (see ``summaries``): it makes no difference.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

from xray_server.stores.parts import Bucket, Rollup
from xray_server.summaries import merge_summaries

HALF_DAY_MS = 12 * 3_600_000


def half_day_of(bucket: Bucket) -> Bucket:
    """The bucket of the half day that an hour's bucket is in; its ``hour`` is where the half day begins."""
    return dataclasses.replace(bucket, hour=bucket.hour // HALF_DAY_MS * HALF_DAY_MS)


def sums_of(hours: Iterable[Rollup]) -> dict[Bucket, Rollup]:
    """The sums of half days.

    Args:
        hours: The rollups of all hours of each bucket and half day.
    """
    found: dict[Bucket, list[Rollup]] = {}
    for rollup in hours:
        found.setdefault(half_day_of(rollup.bucket), []).append(rollup)
    return {bucket: _sum_of(bucket, rollups) for bucket, rollups in found.items()}


def _sum_of(bucket: Bucket, rollups: Sequence[Rollup]) -> Rollup:
    names = dict.fromkeys(itertools.chain.from_iterable(rollup.metrics for rollup in rollups))
    return Rollup(
        bucket,
        sum(rollup.stage_count for rollup in rollups),
        sum(rollup.failure_count for rollup in rollups),
        {
            name: merge_summaries(rollup.metrics[name] for rollup in rollups if name in rollup.metrics)
            for name in sorted(names)
        },
    )


def stretches(half_days: Iterable[int]) -> list[tuple[int, int]]:
    """The stretches of time that some half days make, each from its start to its end.

    Args:
        half_days: The starts of half days, in milliseconds since 1970.
    """
    found: list[tuple[int, int]] = []
    for start in sorted(set(half_days)):
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], start + HALF_DAY_MS)
        else:
            found.append((start, start + HALF_DAY_MS))
    return found
