"""Aggregations out of rollups: what whole hours sum up to, beside a scan of the rest.

A rollup says how many stages of one pipeline, version, name and type began in one hour, and what their metrics sum up
to, exactly. A question about nothing else gets the same answer out of rollups as out of the stages: counts, sums,
averages and bounds. Percentiles do not come out of rollups, whose sketches are off by up to a hundredth.

What the first and the last hour have beyond the question's bounds, and stages without a start, are scanned. So is the
first day that runs are left of: retention removes runs with all of their stages, which may have begun later, and what
they were in the rollups of these hours remains.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from xray_server.documents import Document
from xray_server.half_days import HALF_DAY_MS
from xray_server.query import ast
from xray_server.query.evaluate import compile_condition
from xray_server.query.figures import QUANTILES, WEIGHTED, Aggregation, references_of, rollup_name
from xray_server.query.narrowing import necessary_values, references
from xray_server.rollups import HOUR_MS, MAX_METRICS, read_half_days, read_rollups
from xray_server.stores.base import Bucket, Rollup, Store

SETTLED_MS = 24 * HOUR_MS
"""How long after the start of the oldest run stages of removed runs may have begun."""

FEWEST_HOURS = 6
"""Fewer hours are scanned: that costs no more."""

MOST_HOURS = 10 * 366 * 24
"""More are scanned: they are so many because somebody's clock is wrong, and nearly all of them are empty."""

MOST_DIRTY = 200
"""Buckets that are computed anew for a question; where more have changed, the stages are scanned, within the budget."""

_FIRST_UNITS = 4
_UNITS_AT_ONCE = 7 * 24
"""How many hours, or half days, are read first, and at once: after the first it is seen whether that pays."""

_LARGEST = 2.0**53
"""Integers from here on are not exact in rollups."""

_EVER = 2**62
_STARTED_AT = ast.Field(("started_at",))
_LABEL, _VERSION = ast.Field(("pipeline", "label")), ast.Field(("pipeline", "version"))
_OF_STAGES = (ast.Field(("name",)), ast.Field(("type",)), _LABEL, _VERSION)
_OF_RUNS = (ast.Field(("label",)), ast.Field(("version",)))
_NEWEST = (ast.SortKey(_STARTED_AT, descending=True), ast.SortKey(ast.Field(("id",)), descending=True))
_OLDEST = (ast.SortKey(_STARTED_AT), ast.SortKey(ast.Field(("id",))))


@dataclass(frozen=True, slots=True)
class Asked:
    """What a question asks that rollups can answer.

    Args:
        since: The earliest start of a stage in milliseconds since 1970, or None.
        until: The start before which all are, or None.
        kind: What else is asked of a stage, which its bucket knows.
    """

    since: int | None
    until: int | None
    kind: ast.Condition


def asked_of(aggregation: Aggregation) -> Asked | None:
    """What an aggregation asks of rollups; None where they do not know it."""
    conditions, bucket = aggregation.conditions, aggregation.bucket
    if conditions.candidate is not None or conditions.stages or (bucket is not None and bucket.unit == "minute"):
        return None
    if any(value.operator in QUANTILES or value.operator in WEIGHTED for value in aggregation.values):
        return None
    if any(not isinstance(reference, ast.Metric) for reference in references_of(aggregation)):
        return None
    if any(reference not in _OF_STAGES for _, reference in aggregation.group_by):
        return None
    since, until = -_EVER, _EVER
    rest: list[ast.Condition] = []
    for part in _parts(conditions.stage):
        match part:
            case ast.Test(reference, ast.Compare(op, int(moment))) if reference == _STARTED_AT and op != "eq":
                if op in ("gt", "gte"):
                    since = max(since, moment + (op == "gt"))
                else:
                    until = min(until, moment + (op == "lte"))
            case _:
                rest.append(part)
    kind = ast.And(tuple(rest))
    if not all(reference in _OF_STAGES for reference in references(kind)):
        return None
    if not all(reference in _OF_RUNS for reference in references(conditions.pipeline)):
        return None
    return Asked(None if since == -_EVER else since, None if until == _EVER else until, kind)


def _parts(condition: ast.Condition) -> list[ast.Condition]:
    if isinstance(condition, ast.And):
        return [part for inner in condition.conditions for part in _parts(inner)]
    return [condition]


class Plan:
    """Which hours come out of rollups.

    Args:
        aggregation: What is asked.
        asked: What of it rollups know.
        first: The start of the first hour, in milliseconds since 1970.
        end: The end of the last one.
    """

    def __init__(self, aggregation: Aggregation, asked: Asked, first: int, end: int) -> None:
        self.first, self.end = first, end
        self._aggregation = aggregation
        self._names = [rollup_name(reference) for reference in references_of(aggregation)]
        self._of_stage = compile_condition(asked.kind)
        self._of_run = compile_condition(aggregation.conditions.pipeline)
        labels = (
            necessary_values(asked.kind, _LABEL),
            necessary_values(aggregation.conditions.pipeline, ast.Field(("label",))),
        )
        self.label = next((next(iter(each)) for each in labels if each is not None and len(each) == 1), None)
        bucket = aggregation.bucket
        self._by_half_days = bucket is None or (bucket.timezone == "UTC" and bucket.unit in ("day", "week", "month"))
        names = necessary_values(asked.kind, ast.Field(("name",)))
        self.name = next(iter(names)) if names is not None and len(names) == 1 else None
        self.beside: list[ast.Condition] = [_began("gte", end), _began("lt", first)]
        if asked.since is None and asked.until is None:
            self.beside.append(ast.Test(_STARTED_AT, ast.Compare("eq", None)))

    async def rollups(self, store: Store, project: str) -> AsyncIterator[Sequence[Rollup]]:
        """The rollups of these hours, as the stages say, the latest first; of whole half days where that is enough.

        Raises:
            StoreError: The data could not be read.
        """
        read, unit_ms = (read_half_days, HALF_DAY_MS) if self._by_half_days else (read_rollups, HOUR_MS)
        end, step_ms = self.end, _FIRST_UNITS * unit_ms
        while end > self.first:
            start = max(self.first, (end - step_ms) // unit_ms * unit_ms)
            yield await read(store, project, label=self.label, name=self.name, since=start, until=end)
            end, step_ms = start, min(2 * step_ms, _UNITS_AT_ONCE * unit_ms)

    def concerns(self, bucket: Bucket) -> bool:
        """Whether stages of a bucket are asked about."""
        stage = like(bucket)
        return self._of_stage(stage) and self._of_run(stage["pipeline"])

    def is_said_by(self, rollup: Rollup) -> bool:
        """Whether a rollup says all that is asked, as exactly as its stages do."""
        asked = self._aggregation.bucket
        hour = rollup.bucket.hour
        if asked is not None and asked.start_of(hour) != asked.start_of(hour + HOUR_MS - 1):
            return False  # an hour of the zone's clocks begins within this one
        for name in self._names:
            summary = rollup.metrics.get(name)
            if len(rollup.metrics) >= MAX_METRICS and (summary is None or self._by_half_days):
                return False  # it may have been left out, in one of its hours
            if summary and summary["count"] and max(abs(summary["min"]), abs(summary["max"])) >= _LARGEST:
                return False
        return True


def like(bucket: Bucket) -> Document:
    """What the stages of a bucket have in common, as a stage."""
    pipeline = {"label": bucket.label, "version": bucket.version}
    stage: dict[str, Any] = {"name": bucket.name, "type": bucket.type}
    known = {name: value for name, value in stage.items() if value is not None}
    return {
        **known,
        "pipeline": {name: value for name, value in pipeline.items() if value is not None},
        "started_at": bucket.hour,
    }


async def plan(store: Store, project: str, aggregation: Aggregation) -> Plan | None:
    """Which hours come out of rollups; None where none do.

    Args:
        store: The store, open.
        project: The project.
        aggregation: What is asked.

    Raises:
        StoreError: The data could not be read.
    """
    asked = asked_of(aggregation)
    if asked is None:
        return None
    oldest = await store.scan(project, ast.Scan("runs", pipeline=_began("gte", -_EVER), sort=_OLDEST, limit=1))
    newest = await store.scan(project, ast.Scan("stages", stage=_began("gte", -_EVER), sort=_NEWEST, limit=1))
    since, until = (rows[0].document.get("started_at") if rows else None for rows in (oldest, newest))
    if since is None or until is None:
        return None
    settled = since + SETTLED_MS
    first = max(settled, asked.since if asked.since is not None else settled)
    end = min(until, asked.until if asked.until is not None else _EVER)
    first, end = -(-first // HOUR_MS) * HOUR_MS, end // HOUR_MS * HOUR_MS
    if not FEWEST_HOURS <= (end - first) // HOUR_MS <= MOST_HOURS:
        return None
    found = Plan(aggregation, asked, first, end)
    dirty = await store.dirty_buckets(project, limit=MOST_DIRTY + 1, label=found.label, since=first, until=end)
    return None if len(dirty) > MOST_DIRTY else found


def _began(op: Any, moment: int) -> ast.Condition:
    return ast.Test(_STARTED_AT, ast.Compare(op, moment))
