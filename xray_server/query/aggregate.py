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
from xray_server.stores.base import Grouped, ScanCut, Store

DOCUMENT_BUDGET = 5_000_000
PAGE_BUDGET = 20_000
TIME_BUDGET_S = 30.0

GROUPED_AT_ONCE = 200_000
"""Stages whose numbers are read at once: a second or so, and some ten megabytes for each metric."""

FEW = 30_000
"""So many stages are counted themselves, without looking whether there are rollups of them."""

STAGES_FOR_A_ROLLUP = 16
"""So many stages are counted in the time of reading a rollup; rollups of fewer are left alone."""

IN_ONE_STEP = 3000
"""So many stages are counted on the event loop's own thread."""

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
    reading = _Reading(store, project, aggregation, budget, by_groups=True)
    latest = await reading.scan_few()
    if latest is not None and latest.found.last is None:
        return await reading.aggregated()
    plan = await hours.plan(store, project, aggregation)
    for by_groups in (True, False):
        with contextlib.suppress(_StagesNeededError):
            if plan is not None:
                reading = reading.anew(by_groups=by_groups)
                if await _with_rollups(reading, plan):
                    return await reading.aggregated()
            reading = reading.anew(by_groups=by_groups)
            await reading.scan(aggregation.conditions, latest if by_groups else None)
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
    """A store that gave numbers cannot give those of the stages that come next."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Stages by group, as a store gave them, and the buckets of the spans of time by which they are grouped."""

    found: Grouped
    bucket_of: Mapping[int | None, str | None]


async def _with_rollups(reading: _Reading, plan: hours.Plan) -> bool:
    """Read rollups, and the stages beside them; False where rollups cannot say it after all, or do not pay."""
    conditions = reading.aggregation.conditions
    latest, *earlier = [replace(conditions, stage=ast.And((conditions.stage, beside))) for beside in plan.beside]
    await reading.scan(latest)
    before, read = reading.matched, 0
    async for rollups in plan.rollups(reading.store, reading.project):
        if reading.is_spent():
            break
        read += len(rollups)
        if not await asyncio.to_thread(reading.add_rollups, plan, rollups):
            return False
        if reading.matched - before < read * STAGES_FOR_A_ROLLUP:
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
        by_groups: Whether to read the numbers of stages without the stages, where the store can.
    """

    def __init__(
        self, store: Store, project: str, aggregation: Aggregation, budget: _Budget, *, by_groups: bool
    ) -> None:
        self.store = store
        self.project = project
        self.aggregation = aggregation
        self._budget = budget
        self._documents_left = budget.documents
        self._groups = Groups(aggregation)
        self._weigh = any(value.operator in WEIGHTED for value in aggregation.values)
        self._by_groups = by_groups and not self._weigh and self._groups.is_plain
        self.spans_ms: tuple[int | None, ...] = aggregation.bucket.spans_ms if aggregation.bucket else (None,)
        """By how long spans of time to group, the longest first; those that were too long are gone."""
        self.matched = 0
        """How many stages were counted."""
        self._rollups = 0
        self._parts: list[Coverage] = []
        self._spent = False

    def anew(self, *, by_groups: bool) -> _Reading:
        """A reading of the same, before anything was read."""
        made = _Reading(self.store, self.project, self.aggregation, self._budget, by_groups=by_groups)
        made.spans_ms = self.spans_ms
        return made

    def is_spent(self) -> bool:
        """Whether the time is used up; then what is missing is said."""
        self._spent |= time.monotonic() >= self._budget.deadline
        return self._spent

    async def scan(self, question: ast.Question, latest: _Part | None = None) -> None:
        """Read the stages that satisfy a question's conditions, unless the budget is spent already.

        Args:
            question: The question.
            latest: What of it was read already, if anything.
        """
        if self._spent or await self._scan_groups(question, latest):
            return
        budget = self._budget
        search = Search(self.store, self.project, question, budget.pages, self._documents_left, budget.deadline)
        matched = 0
        async for stages in _some_at_once(search.each_stage()):
            weights = await _weights(search, stages) if self._weigh else itertools.repeat(None)
            for stage, weight in zip(stages, weights, strict=False):
                self._groups.add(stage, weight)
            matched += len(stages)
            await asyncio.sleep(0)
        self._count(search.coverage(matched, complete=not search.spent))

    async def scan_few(self) -> _Part | None:
        """Read the latest stages, which may be all: so few that looking for rollups would take as long.

        Returns:
            What was read; it is counted if it is all there is.
        """
        if self._documents_left <= FEW:
            return None
        try:
            part = await self._part_of(self.aggregation.conditions, None, FEW + 1)
        except ScanCut:
            return None
        if part is not None and part.found.last is None:
            await self._add(part)
            self._count_stages(part.found.stages, complete=True)
        return part

    async def _add(self, part: _Part) -> None:
        if part.found.stages > IN_ONE_STEP:
            await asyncio.to_thread(self._groups.add_grouped, part.found, part.bucket_of)
        else:
            async with turn():
                self._groups.add_grouped(part.found, part.bucket_of)

    async def _scan_groups(self, question: ast.Question, part: _Part | None) -> bool:
        """Read the numbers of the same stages, where the store gives these without the stages; whether it did.

        Raises:
            _StagesNeededError: It did for some of them only, which are counted already.
        """
        matched, after = 0, None
        while True:
            try:
                if part is None:
                    part = await self._part_of(question, after, min(GROUPED_AT_ONCE, self._documents_left - matched))
            except ScanCut:
                self._count_stages(matched, complete=False)
                return True
            if part is None and matched:
                raise _StagesNeededError
            if part is None:
                return False
            await self._add(part)
            matched, after, part = matched + part.found.stages, part.found.last, None
            if after is None or matched >= self._documents_left or self.is_spent():
                self._count_stages(matched, complete=after is None)
                return True

    async def _part_of(self, question: ast.Question, after: tuple[Any, ...] | None, limit: int) -> _Part | None:
        """Some stages by group, the latest first; None where the store cannot say it.

        Raises:
            ScanCut: The time is used up.
        """
        if not self._by_groups or question.candidate is not None or question.stages:
            return None
        scan = ast.Scan(
            "stages",
            pipeline=question.pipeline,
            stage=question.stage,
            after=after,
            limit=limit,
            deadline=self._budget.deadline,
        )
        if scan.pipeline != question.pipeline or scan.stage != question.stage:
            return None  # a store knows only something weaker
        bucket, groups = self.aggregation.bucket, self._groups
        while True:
            span_ms = self.spans_ms[0]
            found = await self.store.grouped(self.project, scan, groups.by, span_ms, groups.references)
            if found is None or bucket is None or span_ms is None:
                return None if found is None else _Part(found, {})
            bucket_of = bucket.of_spans((group.span for group in found.groups), span_ms)
            if bucket_of is not None:
                return _Part(found, bucket_of)
            self.spans_ms = self.spans_ms[1:]  # one of them is in two buckets

    def _count_stages(self, stages: int, *, complete: bool) -> None:
        self._count(Coverage(stages, stages, pages_opened=0, without_all_candidates=0, complete=complete))

    def _count(self, covered: Coverage) -> None:
        self._parts.append(covered)
        self._spent |= not covered.complete
        self._documents_left -= covered.scanned
        self.matched += covered.matched

    def add_rollups(self, plan: hours.Plan, rollups: Sequence[Any]) -> bool:
        """Count what some rollups stand for; False where one of them does not say what is asked."""
        for rollup in rollups:
            if not plan.concerns(rollup.bucket):
                continue
            if not plan.is_said_by(rollup):
                return False
            self._groups.add_rollup(hours.like(rollup.bucket), rollup.stage_count, rollup.metrics)
            self.matched += rollup.stage_count
            self._rollups += 1
        return True

    async def aggregated(self) -> Aggregated:
        """The answer."""
        if self.matched <= IN_ONE_STEP:
            rows = self._groups.rows()
        else:  # ordering many numbers, and many groups, takes a while
            rows = await asyncio.to_thread(self._groups.rows)
        coverage = Coverage(
            matched=self.matched,
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
