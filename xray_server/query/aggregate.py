"""Aggregations: figures over all stages that satisfy a question's conditions, by group and by time."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xray_server.documents import Document
from xray_server.query import ast, hours
from xray_server.query.figures import WEIGHTED, Aggregation, Groups
from xray_server.query.search import Coverage, Search, by_id
from xray_server.query.sorting import DEFAULT_SORT
from xray_server.stores.base import Store

DOCUMENT_BUDGET = 500_000
PAGE_BUDGET = 20_000
TIME_BUDGET_S = 30.0

_AT_ONCE = 200
"""Stages that are counted before others have their turn on the event loop."""


@dataclass(frozen=True, slots=True)
class Aggregated:
    """What an aggregation found.

    Args:
        rows: A document for each group: ``group``, ``bucket`` where one was asked for, and ``values``.
        coverage: What they rest on; ``matched`` counts stages.
        rollups: How many rollups stand for stages that were not read.
    """

    rows: list[Document]
    coverage: Coverage
    rollups: int = 0


async def aggregate(
    store: Store,
    project: str,
    aggregation: Aggregation,
    *,
    page_budget: int = PAGE_BUDGET,
    document_budget: int = DOCUMENT_BUDGET,
    time_budget_s: float = TIME_BUDGET_S,
) -> Aggregated:
    """Work out an aggregation: exact over every stage that was read, or that a rollup stands for.

    The latest stages are read first. Where a budget ends it, the figures are exact over those that were read, and the
    coverage says that they are not all. Whole hours come out of rollups where these say the same (see ``hours``).

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
    plan = await hours.plan(store, project, aggregation)
    if plan is not None:
        found = await _with_rollups(store, project, aggregation, plan, document_budget, deadline)
        if found is not None:
            return found
    reading = _Reading(store, project, aggregation, page_budget, document_budget, deadline)
    await reading.scan(aggregation.conditions)
    return await reading.aggregated()


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


async def _with_rollups(
    store: Store, project: str, aggregation: Aggregation, plan: hours.Plan, document_budget: int, deadline: float
) -> Aggregated | None:
    """The answer out of rollups and of the stages beside them; None where rollups cannot say it after all."""
    reading = _Reading(store, project, aggregation, PAGE_BUDGET, document_budget, deadline)
    latest, *earlier = [
        replace(aggregation.conditions, stage=ast.And((aggregation.conditions.stage, beside))) for beside in plan.beside
    ]
    await reading.scan(latest)
    async for rollups in plan.rollups(store, project):
        if reading.is_spent():
            break
        if not await asyncio.to_thread(reading.add_rollups, plan, rollups):
            return None
    for question in earlier:
        await reading.scan(question)
    return await reading.aggregated()


class _Reading:
    """What was read so far for an aggregation."""

    def __init__(
        self,
        store: Store,
        project: str,
        aggregation: Aggregation,
        page_budget: int,
        document_budget: int,
        deadline: float,
    ) -> None:
        self._store = store
        self._project = project
        self._page_budget = page_budget
        self._documents_left = document_budget
        self._deadline = deadline
        self._groups = Groups(aggregation)
        self._weigh = any(value.operator in WEIGHTED for value in aggregation.values)
        self._matched = self._scanned = self._rollups = 0
        self._parts: list[Coverage] = []
        self._spent = False

    def is_spent(self) -> bool:
        """Whether the time is used up; then what is missing is said."""
        self._spent |= time.monotonic() >= self._deadline
        return self._spent

    async def scan(self, question: ast.Question) -> None:
        """Read the stages that satisfy a question's conditions, unless the budget is spent already."""
        if self._spent:
            return
        search = Search(self._store, self._project, question, self._page_budget, self._documents_left, self._deadline)
        matched = 0
        async for stages in _some_at_once(search.each_stage()):
            weights = await _weights(search, stages) if self._weigh else itertools.repeat(None)
            for stage, weight in zip(stages, weights, strict=False):
                self._groups.add(stage, weight)
            matched += len(stages)
            await asyncio.sleep(0)
        covered = search.coverage(matched, complete=not search.spent)
        self._parts.append(covered)
        self._spent |= search.spent
        self._documents_left -= covered.scanned
        self._matched += matched

    def add_rollups(self, plan: hours.Plan, rollups: Sequence[Any]) -> bool:
        """Count what some rollups stand for; False where one of them does not say what is asked."""
        for rollup in rollups:
            if not plan.concerns(rollup.bucket):
                continue
            if not plan.is_said_by(rollup):
                return False
            self._groups.add_rollup(hours.like(rollup.bucket), rollup.stage_count, rollup.metrics)
            self._matched += rollup.stage_count
            self._rollups += 1
        return True

    async def aggregated(self) -> Aggregated:
        """The answer."""
        # Ordering many numbers, and many groups, takes a while.
        rows = await asyncio.to_thread(self._groups.rows)
        coverage = Coverage(
            matched=self._matched,
            scanned=sum(part.scanned for part in self._parts),
            pages_opened=sum(part.pages_opened for part in self._parts),
            without_all_candidates=sum(part.without_all_candidates for part in self._parts),
            complete=not self._spent,
        )
        return Aggregated(rows, coverage, self._rollups)


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
