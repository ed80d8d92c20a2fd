"""Aggregations: figures over all stages that satisfy a question's conditions, by group and by time."""

from __future__ import annotations

import asyncio
import datetime as dt
import math
import time
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from xray.exceptions import QueryError
from xray.metrics import quantile
from xray_server.documents import Document
from xray_server.query import ast
from xray_server.query.buckets import Bucket
from xray_server.query.fields import kind_of
from xray_server.query.run import Coverage, Search
from xray_server.query.sorting import DEFAULT_SORT
from xray_server.stores.base import Store

DOCUMENT_BUDGET = 5_000_000
PAGE_BUDGET = 20_000
TIME_BUDGET_S = 30.0
MAX_GROUPS = 10_000

QUANTILES = {"$p50": 0.5, "$p90": 0.9, "$p99": 0.99}
VALUES_AT_ONCE = 5000
"""Stages whose values are read at once."""

_NUMBERS = (int, float)  # and not bool, which is an int too
_SPANS_MS = (86_400_000, 3_600_000)
"""A day and an hour: most lie in one bucket each."""

_STARTED_AT = ast.Field(("started_at",))
_YIELD_EVERY = 200
"""Stages after which others have their turn on the event loop."""

_encode = msgspec.json.Encoder(order="deterministic").encode


@dataclass(frozen=True, slots=True)
class Value:
    """One figure of each group.

    Args:
        name: Its name in the answer.
        operator: ``$count``, ``$sum``, ``$avg``, ``$min``, ``$max``, ``$p50``, ``$p90`` or ``$p99``.
        reference: The metric or field that it is about; None for ``$count``.
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
    """

    conditions: ast.Question
    values: tuple[Value, ...]
    group_by: tuple[tuple[str, ast.Field], ...] = ()
    bucket: Bucket | None = None
    sort: tuple[tuple[str, bool], ...] = ()
    limit: int = 1000


@dataclass(slots=True)
class _Group:
    keys: tuple[Any, ...]
    bucket: str | None
    numbers: list[array[float]]
    """For each reference all numbers, in the order of the scan."""

    whole: list[int | None]
    """For each reference the sum while all of its numbers are integers, which floats could not keep exactly."""

    count: int = 0


@dataclass(frozen=True, slots=True)
class Aggregated:
    """What an aggregation found.

    Args:
        rows: A document for each group: ``group``, ``bucket`` where one was asked for, and ``values``.
        coverage: What they rest on; ``matched`` counts stages.
    """

    rows: list[Document]
    coverage: Coverage


async def aggregate(
    store: Store,
    project: str,
    aggregation: Aggregation,
    *,
    page_budget: int = PAGE_BUDGET,
    document_budget: int = DOCUMENT_BUDGET,
    time_budget_s: float = TIME_BUDGET_S,
) -> Aggregated:
    """Work out an aggregation: exact over every stage that was read.

    The latest stages are read first. Where a budget ends it, the figures are exact over those that were read, and the
    coverage says that they are not all.

    Args:
        store: The store, open.
        project: The project.
        aggregation: What is asked.
        page_budget: How many candidate pages to decompress.
        document_budget: How many runs and stages to read, and candidate pages to pass over.
        time_budget_s: How long to read.

    Raises:
        QueryError: There are too many groups.
        StoreError: The data could not be read.
    """
    deadline = time.monotonic() + time_budget_s
    groups = _Groups(aggregation)
    coverage = await _read_values(store, project, aggregation, groups, document_budget, deadline)
    if coverage is None:
        search = Search(store, project, aggregation.conditions, page_budget, document_budget, deadline)
        matched = 0
        async for stage in search.each_stage():
            groups.add_stage(stage)
            matched += 1
            if matched % _YIELD_EVERY == 0:
                await asyncio.sleep(0)
        coverage = search.coverage(matched, complete=not search.spent)
    ordered = _ordered(groups.rows(), aggregation)[: aggregation.limit]
    return Aggregated(ordered, coverage)


async def _read_values(
    store: Store, project: str, aggregation: Aggregation, groups: _Groups, budget: int, deadline: float
) -> Coverage | None:
    """Add the values of every stage, where the store gives these without the stages; None where it does not."""
    question = aggregation.conditions
    if question.candidate is not None or question.stages or not groups.is_plain:
        return None
    matched, after = 0, None
    while True:
        limit = min(VALUES_AT_ONCE, budget - matched)
        scan = ast.Scan("stages", pipeline=question.pipeline, stage=question.stage, after=after, limit=limit)
        if scan.pipeline != question.pipeline or scan.stage != question.stage:
            return None  # a store knows only something weaker
        found = await store.values(project, scan, groups.wanted)
        if found is None:
            # Where some are counted already, what they are counted in is of no use any more.
            groups.clear()
            return None
        groups.add_columns(found.columns, found.stages)
        matched, after = matched + found.stages, found.last
        complete = found.stages < limit
        if complete or matched >= budget or time.monotonic() >= deadline:
            return Coverage(matched, matched, pages_opened=0, without_all_candidates=0, complete=complete)


def every_stage(conditions: ast.Question) -> ast.Question:
    """The question whose stages an aggregation is about, in the order in which they are read.

    Args:
        conditions: The conditions.
    """
    return ast.Question(
        pipeline=conditions.pipeline,
        stage=conditions.stage,
        candidate=conditions.candidate,
        stages=conditions.stages,
        sort=DEFAULT_SORT,
    )


class _Groups:
    """The groups that there are so far.

    Args:
        aggregation: What is asked.
    """

    def __init__(self, aggregation: Aggregation) -> None:
        self._aggregation = aggregation
        given = (value.reference for value in aggregation.values if value.reference is not None)
        self._references = tuple(dict.fromkeys(given))
        self._by = tuple(field for _, field in aggregation.group_by)
        self.wanted: tuple[ast.Reference, ...] = (_STARTED_AT, *self._by, *self._references)
        """What :meth:`add_columns` takes the columns of."""
        self.is_plain = all(kind_of("stages", field) in ("id", "string") for field in self._by)
        """Whether groups are of texts only, so that equal ones are the same."""
        self.clear()

    def clear(self) -> None:
        """Forget all groups."""
        self._groups: dict[bytes, _Group] = {}

    def add_stage(self, stage: Mapping[str, Any]) -> None:
        """Add one stage."""
        keys = tuple(_walk(stage, field) for field in self._by)
        group = self._group(keys, self._bucket(stage.get("started_at")))
        group.count += 1
        for place, reference in enumerate(self._references):
            _add_numbers(group, place, [_walk(stage, reference)])

    def add_columns(self, columns: Sequence[Sequence[Any]], stages: int) -> None:
        """Add many stages by their values."""
        if not stages:
            return
        width = 1 + len(self._by)
        kinds: Sequence[Sequence[Any]] = columns[1:width]
        if self._aggregation.bucket is not None:
            kinds = [*kinds, self._buckets(columns[0])]
        # First which stages are of which group, then all numbers of a group at once.
        places: dict[tuple[Any, ...], list[int]] = {}
        for place, kind in enumerate(zip(*kinds, strict=True) if kinds else [()] * stages):
            of_kind = places.get(kind)
            if of_kind is None:
                places[kind] = [place]
            else:
                of_kind.append(place)
        for kind, of_kind in places.items():
            bucket = kind[-1] if self._aggregation.bucket is not None else None
            group = self._group(kind[: len(self._by)], bucket)
            group.count += len(of_kind)
            for number, column in enumerate(columns[width:]):
                _add_numbers(group, number, [column[place] for place in of_kind])

    def _buckets(self, starts: Sequence[Any]) -> list[str | None]:
        bucket = self._aggregation.bucket
        assert bucket is not None
        zone = ZoneInfo(bucket.timezone)
        known: dict[tuple[int, int], str | None] = {}

        def of_span(span_ms: int, number: int) -> str | None:
            """The bucket in which a whole span of time lies; None where it does not lie in one."""
            first, last = number * span_ms, (number + 1) * span_ms - 1
            begin = bucket.start_of(first)
            if begin != bucket.start_of(last) or _offset(zone, first) != _offset(zone, last):
                return None  # clocks may have jumped in between, and back over the bucket's beginning
            return begin

        found: list[str | None] = []
        for start in starts:
            if start is None:
                found.append(None)
                continue
            one = None
            for span_ms in _SPANS_MS:
                place = span_ms, start // span_ms
                if place not in known:
                    known[place] = of_span(*place)
                one = known[place]
                if one is not None:
                    break
            found.append(one or bucket.start_of(start))
        return found

    def rows(self) -> list[Document]:
        """A document for each group."""
        groups = list(self._groups.values())
        if not groups and not self._by and self._aggregation.bucket is None:
            groups = [self._empty((), None)]
        return [_row(group, self._aggregation, self._references) for group in groups]

    def _bucket(self, started_at: Any) -> str | None:
        bucket = self._aggregation.bucket
        return None if bucket is None else bucket.start_of(started_at)

    def _group(self, keys: tuple[Any, ...], bucket: str | None) -> _Group:
        place = _encode((keys, bucket))
        group = self._groups.get(place)
        if group is None:
            if len(self._groups) == MAX_GROUPS:
                raise QueryError(
                    f"There are more than {MAX_GROUPS:,} groups.",
                    code="too_large",
                    path="group_by" if self._by else "bucket",
                    hint="Ask about less, or group by less.",
                )
            group = self._groups[place] = self._empty(keys, bucket)
        return group

    def _empty(self, keys: tuple[Any, ...], bucket: str | None) -> _Group:
        return _Group(keys, bucket, [array("d") for _ in self._references], [0] * len(self._references))


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


def _offset(zone: ZoneInfo, milliseconds: int) -> dt.timedelta | None:
    try:
        return dt.datetime.fromtimestamp(milliseconds / 1000, zone).utcoffset()
    except (OverflowError, ValueError, OSError):
        return None


def _add_numbers(group: _Group, place: int, values: Iterable[Any]) -> None:
    numbers = [value for value in values if type(value) in _NUMBERS]
    group.numbers[place].extend(numbers)
    total = group.whole[place]
    if total is not None:
        group.whole[place] = total + sum(numbers) if all(type(value) is int for value in numbers) else None


def _row(group: _Group, aggregation: Aggregation, references: Sequence[ast.Reference]) -> Document:
    ordered: dict[int, list[float]] = {}
    values: Document = {}
    for value in aggregation.values:
        if value.reference is None:
            values[value.name] = group.count
            continue
        place = references.index(value.reference)
        numbers = group.numbers[place]
        if value.operator in QUANTILES and place not in ordered:
            ordered[place] = sorted(numbers)
        values[value.name] = _figure(value.operator, numbers, group.whole[place], ordered.get(place, []))
    row: Document = {"group": {name: key for (name, _), key in zip(aggregation.group_by, group.keys, strict=True)}}
    if aggregation.bucket is not None:
        row["bucket"] = group.bucket
    return row | {"values": values}


def _figure(operator: str, numbers: Sequence[float], whole: int | None, ordered: Sequence[float]) -> float | None:
    if operator == "$sum":
        return whole if whole is not None else _sum(numbers)
    if not numbers:
        return None
    if operator == "$avg":
        total = float(whole) if whole is not None else _sum(numbers)
        return None if total is None else total / len(numbers)
    if operator == "$min":
        return min(numbers)
    if operator == "$max":
        return max(numbers)
    return quantile(ordered, QUANTILES[operator])


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
