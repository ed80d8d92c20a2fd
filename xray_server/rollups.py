"""Rollups: what the stages of one kind in one hour sum up to, so that trends over months read no stages.

A rollup is computed from all stages of its bucket at once; counting up with each write would count a repeated write
twice. A store keeps rollups and says which buckets have changed since (see ``Store.dirty_buckets``): the background
task brings those of past hours up to date (:func:`refresh`), and a reader computes the others (:func:`read_rollups`),
so that what is read is always what the stages say.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from xray_server.documents import Document
from xray_server.half_days import HALF_DAY_MS, half_day_of, stretches, sums_of
from xray_server.query.ast import And, Compare, Condition, Field, Scan, SortKey, Test
from xray_server.stores.base import Bucket, Rollup, Store
from xray_server.summaries import Summary, merge_summaries

HOUR_MS = 3_600_000
MAX_METRICS = 2000
"""Metrics of one rollup. Where users' own names in tables make more, those that the fewest stages have are left out."""

STAGES_PER_SCAN = 2000
BUCKETS_AT_ONCE = 500
SCANS_AT_ONCE = 2
"""Spans of time that are read at once, where all of the time may be spent working: one is read, one is summed up."""

MAX_GAP_MS = HOUR_MS
"""Hours that need no rollup and are read with those around them: that costs less than going on behind them."""

_BY_START = (SortKey(Field(("started_at",))), SortKey(Field(("id",))))


# --- pure -------------------------------------------------------------------------------------------------------


def bucket_of(stage: Mapping[str, Any]) -> Bucket | None:
    """The bucket that a stage is in, or None for one without a start."""
    started_at = stage.get("started_at")
    if started_at is None:
        return None
    pipeline = stage.get("pipeline") or {}
    hour = started_at // HOUR_MS * HOUR_MS
    return Bucket(pipeline.get("label"), stage.get("name"), stage.get("type"), pipeline.get("version"), hour)


def changed_buckets(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Bucket]:
    """The buckets whose rollups a write of a stage puts out of date.

    Args:
        before: The stage as it was; empty where there was none.
        after: The stage as it is now.
    """
    old, new = bucket_of(before), bucket_of(after)
    if old == new and before.get("status") == after.get("status") and before.get("metrics") == after.get("metrics"):
        return
    if new is not None:
        yield new
    if old is not None and old != new:
        yield old


def roll_up(stages: Iterable[Mapping[str, Any]]) -> list[Rollup]:
    """The rollups of some stages, by hour.

    Args:
        stages: All stages of each bucket, each once.
    """
    builder = _Builder()
    for stage in stages:
        builder.add(stage)
    return builder.rollups()


def merge_rollups(rollups: Iterable[Rollup]) -> dict[str, dict[str, Any]]:
    """The metrics of several rollups together: of the hours of a day, or of all versions.

    Returns:
        Metric → its summary.
    """
    found: dict[str, list[Mapping[str, Any]]] = {}
    for rollup in rollups:
        for name, summary in rollup.metrics.items():
            found.setdefault(name, []).append(summary)
    return {name: merge_summaries(found[name]) for name in sorted(found)}


class _Builder:
    """Rollups that grow stage by stage."""

    def __init__(self) -> None:
        self._counts: dict[Bucket, list[int]] = {}
        self._metrics: dict[Bucket, dict[str, Summary]] = {}

    def add(self, stage: Mapping[str, Any], wanted: Collection[Bucket] | None = None) -> None:
        bucket = bucket_of(stage)
        if bucket is None or (wanted is not None and bucket not in wanted):
            return
        counts = self._counts.setdefault(bucket, [0, 0])
        counts[0] += 1
        counts[1] += stage.get("status") == "failure"
        summaries = self._metrics.setdefault(bucket, {})
        for name, value in _numbers(stage.get("metrics") or {}):
            summary = summaries.get(name)
            if summary is None:
                summary = summaries[name] = Summary()
            summary.add(value)

    def rollups(self) -> list[Rollup]:
        return [
            Rollup(bucket, stages, failures, _within_bounds(self._metrics[bucket]))
            for bucket, (stages, failures) in sorted(self._counts.items(), key=lambda item: order(item[0]))
        ]


def order(bucket: Bucket) -> tuple[Any, ...]:
    """What buckets are sorted by: the hour, then the words, absent ones first."""
    words = (bucket.label, bucket.name, bucket.type, bucket.version)
    return bucket.hour, *((word is not None, word or "") for word in words)


def _numbers(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    for name, value in metrics.items():
        if value is None or _is_number(value):
            yield name, value
        elif isinstance(value, dict):
            for key, entry in value.items():
                if entry is None or _is_number(entry):
                    yield f"{name}.{key}", entry


def _is_number(value: object) -> bool:
    # What stores keep is finite; the comparison fails for the rest.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _within_bounds(summaries: Mapping[str, Summary]) -> dict[str, dict[str, Any]]:
    names = sorted(summaries)
    if len(names) > MAX_METRICS:
        names = sorted(sorted(names, key=lambda name: -summaries[name].count)[:MAX_METRICS])
    return {name: summaries[name].as_dict() for name in names}


# --- over a store -----------------------------------------------------------------------------------------------


async def read_rollups(
    store: Store, project: str, *, label: str | None = None, name: str | None = None, since: int, until: int
) -> list[Rollup]:
    """The rollups of the hours in which some time lies, exactly as the stages say.

    Args:
        store: The store, open.
        project: The project.
        label: Only of this pipeline; None means any.
        name: Only of stages of this name; None means any.
        since: From the hour of this time on, in milliseconds since 1970.
        until: Up to this time; the hour that it lies in is whole.

    Returns:
        By hour and bucket; the kept ones of clean buckets, and those of dirty ones computed from their stages.

    Raises:
        StoreError: The data could not be read.
    """
    since = since // HOUR_MS * HOUR_MS
    # Before what is kept: a bucket that is brought up to date in between is then computed once too often, never taken
    # as it was.
    dirty = await _dirty_of(store, project, label, name, since, until)
    kept = await store.rollups(project, label=label, name=name, since=since, until=until)
    computed = await _compute(store, project, dirty)
    found = [rollup for rollup in kept if rollup.bucket not in dirty] + computed
    return sorted(found, key=lambda rollup: order(rollup.bucket))


async def read_half_days(
    store: Store, project: str, *, label: str | None = None, name: str | None = None, since: int, until: int
) -> list[Rollup]:
    """What :func:`read_rollups` returns, in part already summed up: some rollups are of whole half days.

    Args:
        store: The store, open.
        project: The project.
        label: Only of this pipeline; None means any.
        name: Only of stages of this name; None means any.
        since: From the hour of this time on, in milliseconds since 1970.
        until: Up to this time; the hour that it lies in is whole.

    Returns:
        In no order; the ``hour`` of the bucket of a half day is where that begins.

    Raises:
        StoreError: The data could not be read.
    """
    since = since // HOUR_MS * HOUR_MS
    first, end = -(-since // HALF_DAY_MS) * HALF_DAY_MS, until // HALF_DAY_MS * HALF_DAY_MS
    # In this order: an hour that is not dirty was kept, and before that its half day was marked.
    dirty = await _dirty_of(store, project, label, name, since, until)
    sums = await store.half_days(project, label=label, name=name, since=first, until=end) if first < end else None
    if sums is None:
        return await read_rollups(store, project, label=label, name=name, since=since, until=until)
    changed = sums.dirty | {half_day_of(bucket) for bucket in dirty}
    found = [rollup for rollup in sums.rollups if rollup.bucket not in changed]
    summed_up = {rollup.bucket for rollup in found}
    spans = [(since, first), *stretches(bucket.hour for bucket in changed if first <= bucket.hour < end), (end, until)]
    for start, stop in spans:
        if start < stop:
            hours = await store.rollups(project, label=label, name=name, since=start, until=stop)
            found += [each for each in hours if each.bucket not in dirty and half_day_of(each.bucket) not in summed_up]
    return found + await _compute(store, project, dirty)


async def refresh_half_days(store: Store, project: str, *, until: int, limit: int = BUCKETS_AT_ONCE) -> int:
    """Bring the sums of the oldest half days up to date that are out of date.

    Args:
        store: The store, open.
        project: The project.
        until: Only half days that have ended at this time, in milliseconds since 1970.
        limit: How many buckets at most.

    Returns:
        How many buckets were brought up to date.

    Raises:
        StoreError: The data could not be read or written.
    """
    dirty = dict(await store.dirty_half_days(project, limit=limit, until=until - HALF_DAY_MS + 1))
    for start in sorted({bucket.hour for bucket in dirty}):
        marks = {bucket: mark for bucket, mark in dirty.items() if bucket.hour == start}
        labels = {bucket.label for bucket in marks}
        label = next(iter(labels)) if len(labels) == 1 else None
        hours = await read_rollups(store, project, label=label, since=start, until=start + HALF_DAY_MS)
        wanted = [rollup for rollup in hours if half_day_of(rollup.bucket) in marks]
        sums = await asyncio.to_thread(sums_of, wanted)
        await store.keep_half_days(
            project, [(sums.get(bucket) or Rollup(bucket, 0, 0, {}), mark) for bucket, mark in marks.items()]
        )
    return len(dirty)


async def refresh(store: Store, project: str, *, until: int, limit: int = BUCKETS_AT_ONCE, share: float = 1.0) -> int:
    """Bring the oldest dirty buckets up to date.

    Args:
        store: The store, open.
        project: The project.
        until: Only hours before this time, in milliseconds since 1970.
        limit: How many buckets at most.
        share: The share of the time that may be spent working; the rest is waited, so that others have their turn.

    Returns:
        How many buckets were brought up to date.

    Raises:
        StoreError: The data could not be read or written.
    """
    # The marks come before the stages: what is written in between leaves a greater mark, and the bucket stays dirty.
    dirty = dict(await store.dirty_buckets(project, limit=limit, until=until))
    if not dirty:
        return 0
    computed = {rollup.bucket: rollup for rollup in await _compute(store, project, set(dirty), share)}
    await store.keep_rollups(
        project, [(computed.get(bucket) or Rollup(bucket, 0, 0, {}), mark) for bucket, mark in dirty.items()]
    )
    return len(dirty)


async def _dirty_of(
    store: Store, project: str, label: str | None, name: str | None, since: int, until: int
) -> set[Bucket]:
    found = await _all_dirty(store, project, label, since, until)
    return found if name is None else {bucket for bucket in found if bucket.name == name}


async def _all_dirty(store: Store, project: str, label: str | None, since: int, until: int) -> set[Bucket]:
    found: set[Bucket] = set()
    limit = BUCKETS_AT_ONCE
    while True:
        batch = await store.dirty_buckets(project, limit=limit, label=label, since=since, until=until)
        found.update(bucket for bucket, _ in batch)
        if len(batch) < limit:
            return found
        # The last hour may go on behind the batch; where it is the first one too, only a larger batch helps.
        if batch[-1][0].hour == since:
            limit *= 2
        since = batch[-1][0].hour


async def _compute(store: Store, project: str, buckets: set[Bucket], share: float = 1.0) -> list[Rollup]:
    at_once = asyncio.Semaphore(1 if share < 1 else SCANS_AT_ONCE)

    async def compute(condition: Condition) -> list[Rollup]:
        async with at_once:
            return await _compute_some(store, project, condition, buckets, share)

    tasks = [asyncio.create_task(compute(condition)) for condition in _conditions(buckets)]
    try:
        found = await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    return sorted((rollup for some in found for rollup in some), key=lambda rollup: order(rollup.bucket))


async def _compute_some(
    store: Store, project: str, condition: Condition, buckets: set[Bucket], share: float
) -> list[Rollup]:
    """The rollups of those of some buckets whose stages satisfy a condition, which none of another does."""
    builder = _Builder()
    after: tuple[Any, ...] | None = None
    while True:
        began = time.monotonic()
        scan = Scan("stages", stage=condition, sort=_BY_START, after=after, limit=STAGES_PER_SCAN)
        rows = await store.scan(project, scan)
        await asyncio.to_thread(_add_all, builder, [row.document for row in rows], buckets)
        if share < 1:
            await asyncio.sleep((time.monotonic() - began) * (1 / share - 1))
        if len(rows) < STAGES_PER_SCAN:
            return await asyncio.to_thread(builder.rollups)
        after = rows[-1].sort_values


def _add_all(builder: _Builder, stages: Sequence[Document], buckets: set[Bucket]) -> None:
    for stage in stages:
        builder.add(stage, buckets)


def _conditions(buckets: Iterable[Bucket]) -> Iterator[Condition]:
    """What the stages of some buckets satisfy: a pipeline and a span of hours at a time, as an index has them."""
    hours: dict[str | None, set[int]] = {}
    for bucket in buckets:
        hours.setdefault(bucket.label, set()).add(bucket.hour)
    for label, of_label in hours.items():
        for start, end in _spans(sorted(of_label)):
            yield And(
                (
                    Test(Field(("pipeline", "label")), Compare("eq", label)),
                    Test(Field(("started_at",)), Compare("gte", start)),
                    Test(Field(("started_at",)), Compare("lt", end)),
                )
            )


def _spans(hours: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The spans that some hours, in order, lie in: those with little between them are one."""
    start = end = hours[0]
    for hour in hours:
        if hour - end > MAX_GAP_MS:
            yield start, end
            start = hour
        end = hour + HOUR_MS
    yield start, end
