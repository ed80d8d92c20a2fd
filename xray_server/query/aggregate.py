"""Aggregations: figures over all stages that satisfy a question's conditions, by group and by time."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from array import array
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from xray.exceptions import QueryError
from xray.metrics import quantile
from xray_server.documents import Document
from xray_server.query import ast
from xray_server.query.buckets import Bucket
from xray_server.query.search import Coverage, Search, by_id
from xray_server.query.sorting import DEFAULT_SORT
from xray_server.stores.base import Store

DOCUMENT_BUDGET = 500_000
PAGE_BUDGET = 20_000
TIME_BUDGET_S = 30.0
MAX_GROUPS = 10_000

QUANTILES = {"$p50": 0.5, "$p90": 0.9, "$p99": 0.99}
WEIGHTED = ("$weightedCount", "$weightedSum", "$weightedAvg")
"""Figures in which each stage counts for as many as its run stands for: one in ``sample_rate``."""

_AT_ONCE = 200
"""Stages that are counted before others have their turn on the event loop."""

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

    weights: list[array[float]]
    """For each reference the weights of its numbers, and behind these of all stages; empty where nobody asks."""

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
    references = tuple(dict.fromkeys(value.reference for value in aggregation.values if value.reference is not None))
    question = aggregation.conditions
    search = Search(store, project, question, page_budget, document_budget, time.monotonic() + time_budget_s)
    groups: dict[bytes, _Group] = {}
    matched = 0
    weigh = any(value.operator in WEIGHTED for value in aggregation.values)
    async for stages in _some_at_once(search.each_stage()):
        weights = await _weights(search, stages) if weigh else itertools.repeat(None)
        for stage, weight in zip(stages, weights, strict=False):
            _add(_group_of(groups, stage, aggregation, references), stage, references, weight)
        matched += len(stages)
        await asyncio.sleep(0)
    if not groups and not aggregation.group_by and aggregation.bucket is None:
        groups[b""] = _empty((), None, references)
    # Ordering many numbers, and many groups, takes a while.
    rows = await asyncio.to_thread(_rows, groups.values(), aggregation, references)
    return Aggregated(rows, search.coverage(matched, complete=not search.spent))


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


async def _some_at_once(stages: AsyncIterator[Document]) -> AsyncIterator[list[Document]]:
    some: list[Document] = []
    async for stage in stages:
        some.append(stage)
        if len(some) == _AT_ONCE:
            yield some
            some = []
    if some:
        yield some


async def _weights(search: Search, stages: Sequence[Mapping[str, Any]]) -> list[float]:
    """How many each stage stands for: all that its run was chosen out of, or itself where that is not known."""
    run_ids = list(dict.fromkeys(stage["run_id"] for stage in stages))
    rates = {row.document["id"]: row.document.get("sample_rate") for row in await search.scan(by_id("runs", run_ids))}
    found = (rates.get(stage["run_id"]) for stage in stages)
    return [1 / rate if isinstance(rate, int | float) and 0 < rate <= 1 else 1.0 for rate in found]


def _group_of(
    groups: dict[bytes, _Group],
    stage: Mapping[str, Any],
    aggregation: Aggregation,
    references: Sequence[ast.Reference],
) -> _Group:
    keys = tuple(_walk(stage, reference) for _, reference in aggregation.group_by)
    bucket = aggregation.bucket.start_of(stage.get("started_at")) if aggregation.bucket else None
    place = _encode((keys, bucket))
    group = groups.get(place)
    if group is None:
        if len(groups) == MAX_GROUPS:
            raise QueryError(
                f"There are more than {MAX_GROUPS:,} groups.",
                code="too_large",
                path="group_by" if aggregation.group_by else "bucket",
                hint="Ask about less, or group by less.",
            )
        group = groups[place] = _empty(keys, bucket, references)
    return group


def _empty(keys: tuple[Any, ...], bucket: str | None, references: Sequence[ast.Reference]) -> _Group:
    weights = [array("d") for _ in range(len(references) + 1)]
    return _Group(keys, bucket, [array("d") for _ in references], [0] * len(references), weights)


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


def _add(group: _Group, stage: Mapping[str, Any], references: Sequence[ast.Reference], weight: float | None) -> None:
    group.count += 1
    if weight is not None:
        group.weights[-1].append(weight)
    for place, reference in enumerate(references):
        number = _walk(stage, reference)
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        group.numbers[place].append(number)
        if weight is not None:
            group.weights[place].append(weight)
        total = group.whole[place]
        if total is not None:
            group.whole[place] = total + number if isinstance(number, int) else None


def _rows(groups: Iterable[_Group], aggregation: Aggregation, references: Sequence[ast.Reference]) -> list[Document]:
    rows = [_row(group, aggregation, references) for group in groups]
    return _ordered(rows, aggregation)[: aggregation.limit]


def _row(group: _Group, aggregation: Aggregation, references: Sequence[ast.Reference]) -> Document:
    ordered: dict[int, list[float]] = {}
    values: Document = {}
    for value in aggregation.values:
        if value.reference is None:
            values[value.name] = group.count if value.operator == "$count" else _sum(group.weights[-1])
            continue
        place = references.index(value.reference)
        numbers = group.numbers[place]
        if value.operator in WEIGHTED:
            values[value.name] = _weighted(value.operator, numbers, group.weights[place])
            continue
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
