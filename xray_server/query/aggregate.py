"""Aggregations: figures over all stages that satisfy a question's conditions, by group and by time."""

from __future__ import annotations

import asyncio
import contextlib
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
from xray_server.query.turns import turn
from xray_server.stores.base import ScanCut, Store

DOCUMENT_BUDGET = 5_000_000
PAGE_BUDGET = 20_000
TIME_BUDGET_S = 30.0

VALUES_AT_ONCE = 20_000
"""Stages whose values are read at once."""

FEW = 3000
"""So many stages are counted themselves, in one step, without looking whether there are rollups of them."""

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
    budget = _Budget(page_budget, document_budget, time.monotonic() + time_budget_s)
    reading = _Reading(store, project, aggregation, budget, by_values=True)
    if await reading.scan_few():
        return await reading.aggregated()
    plan = await hours.plan(store, project, aggregation)
    for by_values in (True, False):
        with contextlib.suppress(_StagesNeededError):
            reading = _Reading(store, project, aggregation, budget, by_values=by_values)
            if plan is not None and await _with_rollups(reading, plan):
                return await reading.aggregated()
            reading = _Reading(store, project, aggregation, budget, by_values=by_values)
            await reading.scan(aggregation.conditions)
            return await reading.aggregated()
    raise AssertionError  # stages themselves are always enough


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


@dataclass(frozen=True, slots=True)
class _Budget:
    """What an aggregation may read: pages and documents, and until when by the monotonic clock."""

    pages: int
    documents: int
    deadline: float


class _StagesNeededError(Exception):
    """A store that gave values cannot give those of the stages that come next."""


async def _with_rollups(reading: _Reading, plan: hours.Plan) -> bool:
    """Read rollups, and the stages beside them; False where rollups cannot say it after all."""
    conditions = reading.aggregation.conditions
    latest, *earlier = [replace(conditions, stage=ast.And((conditions.stage, beside))) for beside in plan.beside]
    await reading.scan(latest)
    async for rollups in plan.rollups(reading.store, reading.project):
        if reading.is_spent():
            break
        if not await asyncio.to_thread(reading.add_rollups, plan, rollups):
            return False
    for question in earlier:
        await reading.scan(question)
    return True


class _Reading:
    """What was read so far for an aggregation.

    Args:
        store: The store.
        project: The project.
        aggregation: What is asked.
        budget: What may be read.
        by_values: Whether to read the values of stages without the stages, where the store can.
    """

    def __init__(
        self, store: Store, project: str, aggregation: Aggregation, budget: _Budget, *, by_values: bool
    ) -> None:
        self.store = store
        self.project = project
        self.aggregation = aggregation
        self._page_budget = budget.pages
        self._documents_left = budget.documents
        self._deadline = budget.deadline
        self._groups = Groups(aggregation)
        self._weigh = any(value.operator in WEIGHTED for value in aggregation.values)
        self._by_values = by_values and not self._weigh and self._groups.is_plain
        self._matched = self._scanned = self._rollups = 0
        self._parts: list[Coverage] = []
        self._spent = False

    def is_spent(self) -> bool:
        """Whether the time is used up; then what is missing is said."""
        self._spent |= time.monotonic() >= self._deadline
        return self._spent

    async def scan(self, question: ast.Question) -> None:
        """Read the stages that satisfy a question's conditions, unless the budget is spent already."""
        if self._spent or await self._scan_values(question):
            return
        search = Search(self.store, self.project, question, self._page_budget, self._documents_left, self._deadline)
        matched = 0
        async for stages in _some_at_once(search.each_stage()):
            weights = await _weights(search, stages) if self._weigh else itertools.repeat(None)
            for stage, weight in zip(stages, weights, strict=False):
                self._groups.add(stage, weight)
            matched += len(stages)
            await asyncio.sleep(0)
        self._count(search.coverage(matched, complete=not search.spent))

    async def scan_few(self) -> bool:
        """Read the values of all stages, where they are so few that looking for rollups would take as long.

        Returns:
            Whether it did; otherwise nothing is counted.
        """
        question = self.aggregation.conditions
        if not self._by_values or question.candidate is not None or question.stages or self._documents_left <= FEW:
            return False
        scan = ast.Scan(
            "stages", pipeline=question.pipeline, stage=question.stage, limit=FEW + 1, deadline=self._deadline
        )
        if scan.pipeline != question.pipeline or scan.stage != question.stage:
            return False
        try:
            found = await self.store.values(self.project, scan, self._groups.wanted)
        except ScanCut:
            return False
        if found is None or found.stages > FEW:
            return False
        async with turn():
            self._groups.add_columns(found.columns, found.stages)
        self._count(Coverage(found.stages, found.stages, pages_opened=0, without_all_candidates=0, complete=True))
        return True

    async def _scan_values(self, question: ast.Question) -> bool:
        """Read the values of the same stages, where the store gives these without the stages; whether it did.

        Raises:
            _StagesNeededError: It did for some of them only, which are counted already.
        """
        if not self._by_values or question.candidate is not None or question.stages:
            return False
        matched, after = 0, None
        while True:
            limit = min(VALUES_AT_ONCE, self._documents_left - matched)
            scan = ast.Scan(
                "stages",
                pipeline=question.pipeline,
                stage=question.stage,
                after=after,
                limit=limit,
                deadline=self._deadline,
            )
            if scan.pipeline != question.pipeline or scan.stage != question.stage:
                return False  # a store knows only something weaker
            try:
                found = await self.store.values(self.project, scan, self._groups.wanted)
            except ScanCut:
                self._count(Coverage(matched, matched, pages_opened=0, without_all_candidates=0, complete=False))
                return True
            if found is None and matched:
                raise _StagesNeededError
            if found is None:
                return False
            await asyncio.to_thread(self._groups.add_columns, found.columns, found.stages)
            matched, after = matched + found.stages, found.last
            complete = found.stages < limit
            if complete or matched >= self._documents_left or self.is_spent():
                self._count(Coverage(matched, matched, pages_opened=0, without_all_candidates=0, complete=complete))
                return True

    def _count(self, covered: Coverage) -> None:
        self._parts.append(covered)
        self._spent |= not covered.complete
        self._documents_left -= covered.scanned
        self._matched += covered.matched

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
        if self._matched <= FEW:
            rows = self._groups.rows()
        else:  # ordering many numbers, and many groups, takes a while
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
