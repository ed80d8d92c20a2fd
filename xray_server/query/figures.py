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

MAX_GROUPS = 10_000

QUANTILES = {"$p50": 0.5, "$p90": 0.9, "$p99": 0.99}
WEIGHTED = ("$weightedCount", "$weightedSum", "$weightedAvg")
"""Figures in which each stage counts for as many as its run stands for: one in ``sample_rate``."""

_NUMBERS = (int, float)  # and not bool, which is an int too
_STARTED_AT = ast.Field(("started_at",))
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


@dataclass(slots=True)
class _Numbers:
    """The numbers of one metric or field in one group."""

    each: array[float] = field(default_factory=lambda: array("d"))
    """One by one, in the order of the scan."""

    whole: int | None = 0
    """Their sum while all of them are integers, which floats could not keep exactly."""

    weights: array[float] = field(default_factory=lambda: array("d"))
    """Their weights; empty where nobody asks."""

    parts: list[float] = field(default_factory=list)
    """What the numbers of rollups sum up to, exactly, as several floats."""

    count: int = 0
    """How many these are."""

    bounds: list[float] = field(default_factory=list)
    """The smallest and the greatest of each rollup."""

    has_sum: bool = True
    """False where a rollup's numbers are too large for a sum."""

    def add(self, number: Any, weight: float | None) -> None:
        if isinstance(number, bool) or not isinstance(number, int | float):
            return
        self.each.append(number)
        if weight is not None:
            self.weights.append(weight)
        if self.whole is not None:
            self.whole = self.whole + number if isinstance(number, int) else None

    def add_many(self, values: Sequence[Any]) -> None:
        numbers = [value for value in values if type(value) in _NUMBERS]
        self.each.extend(numbers)
        if self.whole is not None:
            self.whole = self.whole + sum(numbers) if all(type(value) is int for value in numbers) else None

    def add_summary(self, summary: Mapping[str, Any]) -> None:
        if not summary["count"]:
            return
        self.count += summary["count"]
        self.bounds += (summary["min"], summary["max"])
        self.has_sum &= summary["sum"] is not None
        parts = [summary["sum"] or 0.0, *summary["rest"]]
        self.parts += parts
        if self.whole is not None:
            self.whole = self.whole + sum(map(int, parts)) if all(part.is_integer() for part in parts) else None

    def figure(self, operator: str) -> float | None:
        if operator in WEIGHTED:
            return _weighted(operator, self.each, self.weights)
        total = self._sum()
        if operator == "$sum":
            return total
        if not self.each and not self.count:
            return None
        if operator == "$avg":
            return None if total is None else float(total) / (len(self.each) + self.count)
        if operator == "$min":
            return min((*self.each, *self.bounds) if self.bounds else self.each)
        if operator == "$max":
            return max((*self.each, *self.bounds) if self.bounds else self.each)
        return quantile(sorted(self.each), QUANTILES[operator])

    def _sum(self) -> float | None:
        if not self.has_sum:
            return None
        if self.whole is not None:
            return self.whole
        return _sum((*self.each, *self.parts) if self.parts else self.each)


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
        by = tuple(reference for _, reference in aggregation.group_by)
        self.wanted: tuple[ast.Reference, ...] = (_STARTED_AT, *by, *self.references)
        """What :meth:`add_columns` takes the columns of."""
        self.is_plain = all(kind_of("stages", reference) in ("id", "string") for reference in by)
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

    def add_columns(self, columns: Sequence[Sequence[Any]], stages: int) -> None:
        """Count many stages by their values.

        Args:
            columns: For each of :attr:`wanted` a value for each stage.
            stages: How many stages there are.

        Raises:
            QueryError: There are too many groups.
        """
        if not stages:
            return
        asked = self._aggregation
        width = 1 + len(asked.group_by)
        kinds: Sequence[Sequence[Any]] = columns[1:width]
        if asked.bucket is not None:
            kinds = [*kinds, asked.bucket.starts_of(columns[0])]
        # First which stages are of which group, then all numbers of a group at once.
        places: dict[tuple[Any, ...], list[int]] = {}
        for place, kind in enumerate(zip(*kinds, strict=True) if kinds else [()] * stages):
            of_kind = places.get(kind)
            if of_kind is None:
                places[kind] = [place]
            else:
                of_kind.append(place)
        for kind, of_kind in places.items():
            group = self._group(kind[: len(asked.group_by)], kind[-1] if asked.bucket is not None else None)
            group.count += len(of_kind)
            for numbers, column in zip(group.numbers, columns[width:], strict=True):
                numbers.add_many([column[place] for place in of_kind])

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
        for value in asked.values:
            if value.reference is not None:
                values[value.name] = group.numbers[self.references.index(value.reference)].figure(value.operator)
            else:
                values[value.name] = group.count if value.operator == "$count" else _sum(group.weights)
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
