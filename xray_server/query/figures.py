"""What an aggregation asks, and the groups in which its figures grow: out of stages, and out of rollups of stages."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from xray.exceptions import QueryError
from xray.metrics import quantile
from xray_server.documents import Document
from xray_server.query import ast
from xray_server.query.buckets import Bucket
from xray_server.query.fields import kind_of
from xray_server.stores.parts import Grouped

MAX_GROUPS = 10_000

QUANTILES = {"$p50": 0.5, "$p90": 0.9, "$p99": 0.99}
WEIGHTED = ("$weightedCount", "$weightedSum", "$weightedAvg")
"""Figures in which each stage counts for as many as its run stands for: one in ``sample_rate``."""

_encode = msgspec.json.Encoder(order="deterministic").encode


@dataclass(frozen=True, slots=True)
class Value:
    """One figure of each group.

    Args:
        name: Its name in the answer.
        operator: ``$count``, ``$sum``, ``$avg``, ``$min``, ``$max``, ``$p50``, ``$p90``, ``$p99``, or one of
            :data:`WEIGHTED`.
        reference: The metric or field that it is about; None for ``$count`` and ``$weightedCount``.
    """

    name: str
    operator: str
    reference: ast.Reference | None = None


@dataclass(frozen=True, slots=True)
class Aggregation:
    """A parsed aggregation.

    Args:
        conditions: Which stages it is about.
        group_by: The fields whose values make a group, by the names that the answer has for them.
        bucket: How the stages are put together by the time at which they began, or None.
        values: The figures.
        sort: What the groups are ordered by: ``bucket``, a group's field or a figure, and whether descending.
        limit: How many groups the answer has at most.
        explain: Whether how it is read and run is asked for, and not the figures.
    """

    conditions: ast.Question
    values: tuple[Value, ...]
    group_by: tuple[tuple[str, ast.Field], ...] = ()
    bucket: Bucket | None = None
    sort: tuple[tuple[str, bool], ...] = ()
    limit: int = 1000
    explain: bool = False


class _Sums:
    """What the numbers of rollups sum up to."""

    __slots__ = ("bounds", "count", "has_sum", "parts")

    def __init__(self) -> None:
        self.parts: list[float] = []
        """Their exact sum, as several floats."""
        self.count = 0
        """How many numbers these are."""
        self.bounds: list[float] = []
        """The smallest and the greatest of each rollup."""
        self.has_sum = True
        """False where a rollup's numbers are too large for a sum."""


class _Numbers:
    """The numbers of one metric or field in one group: one by one, and of rollups their sums."""

    __slots__ = ("each", "sums", "weights", "whole")

    def __init__(self) -> None:
        self.each = array("d")
        self.whole: int | None = 0
        """Their sum while all of them are integers, which floats could not keep exactly."""
        self.weights: array[float] | None = None
        """Their weights, where anybody asks."""
        self.sums: _Sums | None = None

    def add(self, number: Any, weight: float | None) -> None:
        if isinstance(number, bool) or not isinstance(number, int | float):
            return
        self.each.append(number)
        if weight is not None:
            self.weights = array("d") if self.weights is None else self.weights
            self.weights.append(weight)
        if self.whole is not None:
            self.whole = self.whole + number if isinstance(number, int) else None

    def add_many(self, numbers: Sequence[float]) -> None:
        self.each.extend(numbers)
        if self.whole is not None:
            self.whole = self.whole + sum(map(int, numbers)) if set(map(type, numbers)) <= {int} else None

    def add_summary(self, summary: Mapping[str, Any]) -> None:
        if not summary["count"]:
            return
        sums = self.sums = _Sums() if self.sums is None else self.sums
        sums.count += summary["count"]
        sums.bounds += (summary["min"], summary["max"])
        sums.has_sum &= summary["sum"] is not None
        parts = [summary["sum"] or 0.0, *summary["rest"]]
        sums.parts += parts
        if self.whole is not None:
            self.whole = self.whole + sum(map(int, parts)) if all(part.is_integer() for part in parts) else None

    def figure(self, operator: str) -> float | None:
        if operator in WEIGHTED:
            return _weighted(operator, self.each, self.weights or ())
        if operator == "$sum":
            return self._sum()
        count = len(self.each) + (self.sums.count if self.sums else 0)
        if not count:
            return None
        if operator == "$avg":
            total = self._sum()
            return None if total is None else float(total) / count
        if operator == "$min":
            return min((*self.each, *self.sums.bounds) if self.sums else self.each)
        if operator == "$max":
            return max((*self.each, *self.sums.bounds) if self.sums else self.each)
        return quantile(sorted(self.each), QUANTILES[operator])

    def _sum(self) -> float | None:
        if self.sums and not self.sums.has_sum:
            return None
        if self.whole is not None:
            return self.whole
        return _sum((*self.each, *self.sums.parts) if self.sums else self.each)


@dataclass(slots=True)
class _Group:
    keys: tuple[Any, ...]
    bucket: str | None
    numbers: tuple[_Numbers, ...]
    weights: array[float] = field(default_factory=lambda: array("d"))
    count: int = 0


class Groups:
    """The groups of an aggregation.

    Args:
        aggregation: What is asked.
    """

    def __init__(self, aggregation: Aggregation) -> None:
        self._aggregation = aggregation
        self.references = references_of(aggregation)
        self._groups: dict[bytes, _Group] = {}
        places = {reference: place for place, reference in enumerate(self.references)}
        self._figures = [
            (value.name, value.operator, None if value.reference is None else places[value.reference])
            for value in aggregation.values
        ]
        """Of each figure its name, its operator, and which of a group's numbers it is of."""
        self.by = tuple(reference for _, reference in aggregation.group_by)
        """The fields whose values make a group."""
        self.is_plain = all(kind_of("stages", reference) in ("id", "string") for reference in self.by)
        """Whether groups are of texts only, so that equal ones are the same."""

    def add(self, stage: Mapping[str, Any], weight: float | None = None) -> None:
        """Count a stage.

        Args:
            stage: The stage.
            weight: How many it stands for, where that is asked.

        Raises:
            QueryError: There are too many groups.
        """
        group = self._group_of(stage)
        group.count += 1
        if weight is not None:
            group.weights.append(weight)
        for reference, numbers in zip(self.references, group.numbers, strict=True):
            numbers.add(_walk(stage, reference), weight)

    def add_grouped(self, found: Grouped, bucket_of: Mapping[int | None, str | None]) -> None:
        """Count many stages by what a store says of them.

        Args:
            found: What the store says.
            bucket_of: The buckets of the spans of time by which it has grouped them.

        Raises:
            QueryError: There are too many groups.
        """
        for some in found.groups:
            group = self._group(some.keys, bucket_of.get(some.span))
            group.count += some.count
            for numbers, given in zip(group.numbers, some.numbers, strict=True):
                numbers.add_many(given)

    def add_rollup(self, like: Mapping[str, Any], count: int, summaries: Mapping[str, Mapping[str, Any]]) -> None:
        """Count the stages of a rollup.

        Args:
            like: What they have in common, as a stage: what they are grouped by, and when one of them began.
            count: How many there are.
            summaries: Metric (``fail_ratio``, ``label_counts.price_too_high``) → what its numbers sum up to.

        Raises:
            QueryError: There are too many groups.
        """
        group = self._group_of(like)
        group.count += count
        for reference, numbers in zip(self.references, group.numbers, strict=True):
            summary = summaries.get(rollup_name(reference))
            if summary is not None:
                numbers.add_summary(summary)

    def rows(self) -> list[Document]:
        """A document for each group, in the order and up to the limit that are asked for."""
        asked = self._aggregation
        if not self._groups and not asked.group_by and asked.bucket is None:
            self._groups[b""] = self._empty((), None)
        return _ordered([self._row(group) for group in self._groups.values()], asked)[: asked.limit]

    def _group_of(self, stage: Mapping[str, Any]) -> _Group:
        asked = self._aggregation
        keys = tuple(_walk(stage, reference) for _, reference in asked.group_by)
        return self._group(keys, asked.bucket.start_of(stage.get("started_at")) if asked.bucket else None)

    def _group(self, keys: tuple[Any, ...], bucket: str | None) -> _Group:
        place = _encode((keys, bucket))
        group = self._groups.get(place)
        if group is None:
            if len(self._groups) == MAX_GROUPS:
                raise QueryError(
                    f"There are more than {MAX_GROUPS:,} groups.",
                    code="too_large",
                    path="group_by" if self._aggregation.group_by else "bucket",
                    hint="Ask about less, or group by less.",
                )
            group = self._groups[place] = self._empty(keys, bucket)
        return group

    def _empty(self, keys: tuple[Any, ...], bucket: str | None) -> _Group:
        return _Group(keys, bucket, tuple(_Numbers() for _ in self.references))

    def _row(self, group: _Group) -> Document:
        asked = self._aggregation
        values: Document = {}
        for name, operator, place in self._figures:
            if place is not None:
                values[name] = group.numbers[place].figure(operator)
            else:
                values[name] = group.count if operator == "$count" else _sum(group.weights)
        row: Document = {"group": {name: key for (name, _), key in zip(asked.group_by, group.keys, strict=True)}}
        if asked.bucket is not None:
            row["bucket"] = group.bucket
        return row | {"values": values}


def references_of(aggregation: Aggregation) -> tuple[ast.Reference, ...]:
    """The metrics and fields that an aggregation works out figures of."""
    return tuple(dict.fromkeys(value.reference for value in aggregation.values if value.reference is not None))


def rollup_name(reference: ast.Reference) -> str:
    """The name that a metric has in rollups."""
    assert isinstance(reference, ast.Metric)
    return reference.name if reference.key is None else f"{reference.name}.{reference.key}"


def _walk(stage: Mapping[str, Any], reference: ast.Reference) -> Any:
    """The value at a path that goes through objects only."""
    if isinstance(reference, ast.Metric):
        path: Sequence[str] = ("metrics", reference.name, *([] if reference.key is None else [reference.key]))
    else:
        path = reference.path
    value: Any = stage
    for step in path:
        if not isinstance(value, dict):
            return None
        value = value.get(step)
    return value


def _weighted(operator: str, numbers: Sequence[float], weights: Sequence[float]) -> float | None:
    total = _sum([number * weight for number, weight in zip(numbers, weights, strict=True)])
    if operator == "$weightedSum" or total is None:
        return total
    return total / math.fsum(weights) if numbers else None


def _sum(numbers: Sequence[float]) -> float | None:
    try:
        total = math.fsum(numbers)
    except OverflowError:
        return None
    return total if math.isfinite(total) else None


def _ordered(rows: list[Document], aggregation: Aggregation) -> list[Document]:
    names = [name for name, _ in aggregation.group_by]
    sort = aggregation.sort or tuple((name, False) for name in (*(["bucket"] if aggregation.bucket else []), *names))
    for name, descending in reversed(sort):
        rows.sort(key=partial(_sort_key, name=name), reverse=descending)
    return rows


def _sort_key(row: Document, name: str) -> tuple[int, Any]:
    """Nothing first, then numbers, then texts, then the rest by its JSON."""
    value = row.get("bucket") if name == "bucket" else row["values"].get(name, row["group"].get(name))
    if value is None:
        return 0, 0
    if isinstance(value, int | float) and not isinstance(value, bool):
        return 1, value
    return (2, value) if isinstance(value, str) else (3, _encode(value).decode())
