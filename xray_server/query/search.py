"""Going through what a store finds for a question, evaluating it again, until a budget is spent.

A store narrows (see ``Store.scan``); here every document that it returns is evaluated again, so that all stores give
the same answer.
"""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from xray_server.documents import Document
from xray_server.query import ast
from xray_server.query.candidates import CandidateReader
from xray_server.query.evaluate import Predicate, compile_condition
from xray_server.query.narrowing import concerns_only_pipeline
from xray_server.query.several import Needed, narrowest, rows_condition
from xray_server.query.sighted import Sighted, sighted
from xray_server.query.sorting import DEFAULT_SORT
from xray_server.query.turns import in_turns
from xray_server.query.windows import first_deadline, pass_over
from xray_server.stores.base import Row, ScanCut, Store

MAX_BATCH = 500
"""Documents that are asked of the store at once, at the most."""

_AT_ONCE = 100
"""Documents that are evaluated before the budget is looked at."""

LOOK_AHEAD = 64
"""Stages whose candidate pages are read at once, where they have few."""

NO_STAGE: Document = {}
"""Stands for the stage of a run where the question asks about none."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """What an answer rests on.

    Args:
        matched: How many rows it has.
        scanned: How many runs and stages were read.
        pages_opened: How many candidate pages were decompressed.
        without_all_candidates: For how many of the stages whose candidates were asked about not all are kept.
        complete: False where the budget ended the search before the page was full.
    """

    matched: int
    scanned: int
    pages_opened: int
    without_all_candidates: int
    complete: bool

    def as_dict(self) -> dict[str, int | bool]:
        """The coverage as JSON."""
        return {
            "matched": self.matched,
            "scanned": self.scanned,
            "pages_opened": self.pages_opened,
            "without_all_candidates": self.without_all_candidates,
            "complete": self.complete,
        }


@dataclass(slots=True)
class Found:
    """A document of a scan: whether it satisfies the conditions on documents, and whether none come after it."""

    row: Row
    satisfied: bool
    last: bool


@dataclass(slots=True)
class Some:
    """Some documents of a scan: which satisfy the conditions on documents, and whether none come after them."""

    rows: Sequence[Row]
    satisfied: list[bool]
    last: bool


class Search:
    """What a question finds, document by document, within a budget.

    Args:
        store: The store, open.
        project: The project.
        question: The question.
        page_budget: How many candidate pages to decompress.
        document_budget: How many runs and stages to read, and candidate pages to pass over.
        deadline: When to stop, by the monotonic clock.
    """

    def __init__(
        self,
        store: Store,
        project: str,
        question: ast.Question,
        page_budget: int,
        document_budget: int,
        deadline: float,
    ) -> None:
        self._store = store
        self._project = project
        self._question = question
        self._page_budget = page_budget
        self._document_budget = document_budget
        self.deadline = deadline
        """When to stop, by the monotonic clock."""
        self.sort = question.sort or DEFAULT_SORT
        """The order in which stages, or runs, are gone through."""
        self._rows_condition = rows_condition(question)
        self.reader = CandidateReader(store, project, question.candidate)
        """What looks into the candidates of a stage."""
        self._run_holds: dict[str, bool] = {}
        self._scanned = 0
        self._cut = False
        self.passed: tuple[Any, ...] | None = None
        """Where to go on, where time was up before a row was found."""
        self.spent = False
        """Whether the budget ended the search."""

    # What a store has decided is not evaluated: then none of these is needed.

    @functools.cached_property
    def pipeline_holds(self) -> Predicate:
        """Whether a run satisfies the condition on runs."""
        return compile_condition(self._question.pipeline)

    @functools.cached_property
    def _stage_holds(self) -> Predicate:
        return compile_condition(self._rows_condition)

    @functools.cached_property
    def _one_holds(self) -> Predicate:
        return compile_condition(self._question.stage)

    @functools.cached_property
    def _needed(self) -> Needed:
        return Needed(self._question.stages)

    async def each_stage(self) -> AsyncIterator[Document]:
        """Every stage that the question asks about, until the budget is spent; then :attr:`spent` says so."""
        async with aclosing(self.scan_stages(self._question.after, MAX_BATCH)) as stages:
            async for found in stages:
                if found.satisfied and await self.reader.has_match(found.row.document):
                    yield found.row.document
                if self.is_spent() and not found.last:
                    self.spent = True
                    return
        self.spent = self.passed is not None

    def coverage(self, matched: int, *, complete: bool) -> Coverage:
        """What the search rests on so far.

        Args:
            matched: How many rows it has.
            complete: Whether it came to its end.
        """
        return Coverage(
            matched=matched,
            scanned=self._scanned,
            pages_opened=self.reader.opened,
            without_all_candidates=self.reader.without_all,
            complete=complete,
        )

    async def note_removed(self) -> None:
        """Count, on the first page, the stages whose candidates nobody can look at any more."""
        if self._question.after is None:
            await self.reader.note_removed(self._question, self.satisfied)

    def is_spent(self) -> bool:
        """Whether the budget is used up."""
        reader = self.reader
        return (
            self._cut
            or reader.opened >= self._page_budget
            or self._scanned + reader.passed_over >= self._document_budget
            or time.monotonic() >= self.deadline
        )

    # --- scanning -----------------------------------------------------------------------------------------------

    async def scan(self, scan: ast.Scan) -> Sequence[Row]:
        """What the store finds; it counts as read."""
        rows = await self._store.scan(self._project, scan)
        self._scanned += len(rows)
        return rows

    async def scan_until_deadline(self, scan: ast.Scan) -> Sequence[Row]:
        """The same of a scan with a deadline; where that comes, what was found so far: then the budget is spent."""
        try:
            return await self.scan(replace(scan, deadline=first_deadline(scan, self.deadline)))
        except ScanCut as cut:
            rows = cut.rows
            if not rows:
                rows, self.passed = await pass_over(self._store, self._project, scan, cut, self.deadline)
            self._cut = True
            self._scanned += len(rows)
            return rows

    def is_last(self, batch: Sequence[Row], position: int, size: int) -> bool:
        """Whether no document comes after this one of a batch that was to have so many."""
        return len(batch) < size and position == len(batch) - 1 and not self._cut

    async def look_ahead(self, stages: Iterable[Document]) -> None:
        """Read the candidate pages of the stages that come next in one step, where they have few."""
        await self.reader.look_ahead([stage["id"] for stage in stages if stage])

    async def scan_stages(self, after: tuple[Any, ...] | None, size: int) -> AsyncGenerator[Found]:
        """All stages that the store finds, in order; in batches that grow while they are being used up."""
        async with aclosing(self.scan_some(after, size)) as batches:
            async for some in batches:
                for place, (row, satisfied) in enumerate(zip(some.rows, some.satisfied, strict=True)):
                    if place % LOOK_AHEAD == 0 and self._question.returns != "candidates":
                        next_ones = range(place, min(place + LOOK_AHEAD, len(some.rows)))
                        await self.look_ahead(some.rows[one].document for one in next_ones if some.satisfied[one])
                    yield Found(row, satisfied, last=some.last and place == len(some.rows) - 1)

    async def scan_some(self, after: tuple[Any, ...] | None, size: int) -> AsyncGenerator[Some]:
        """The same, some at a time."""
        question = self._question
        only = await self.sighted()
        while True:
            size = min(size, MAX_BATCH)
            scan = ast.Scan(
                of="stages",
                pipeline=question.pipeline,
                stage=self._rows_condition if only is None else ast.And((self._rows_condition, only.stages)),
                candidate=question.candidate,
                sort=self.sort,
                after=after,
                limit=size,
                deadline=self.deadline,
            )
            batch = await self.scan_until_deadline(scan)
            for start in range(0, len(batch), _AT_ONCE):
                some = batch[start : start + _AT_ONCE]
                decided = not question.stages and self.is_decided(scan, some)
                hold = [True] * len(some) if decided else await self.satisfied(some)
                yield Some(some, hold, last=self.is_last(batch, start + len(some) - 1, size))
            if len(batch) < size:
                return
            after, size = batch[-1].sort_values, size * 2

    async def sighted(self) -> Sighted | None:
        """The only stages that can have a candidate whose id is asked about; None where they are many, or unknown."""
        return await sighted(self._store, self._project, self._question)

    def is_decided(self, scan: ast.Scan, batch: Sequence[Row]) -> bool:
        """Whether the store has decided the question's own conditions for a batch, not something weaker."""
        question = self._question
        of_stage = self._rows_condition if scan.of == "stages" else narrowest(question)
        return (
            scan.pipeline is question.pipeline
            and scan.stage is of_stage
            and all(row.decided for row in batch)
            and all(one is other for one, other in zip(scan.stages, question.stages, strict=False))
        )

    async def satisfied(self, batch: Sequence[Row]) -> list[bool]:
        """Which stages of a batch satisfy the conditions on the stage and its run."""
        by_copy = concerns_only_pipeline(self._question.pipeline)
        ask_copy = by_copy and self._question.pipeline != ast.EVERYTHING

        def holds(row: Row) -> bool:
            stage = row.document
            return self._stage_holds(stage) and (not ask_copy or self.pipeline_holds(_pipeline_of(stage)))

        of_stage = await in_turns(holds, batch)
        if by_copy and not self._question.stages:
            return of_stage
        run_ids = dict.fromkeys(
            row.document["run_id"]
            for row, holds in zip(batch, of_stage, strict=True)
            if holds and row.document["run_id"] not in self._run_holds
        )
        if run_ids:
            self._run_holds |= dict.fromkeys(run_ids, False) | await self._runs_hold(list(run_ids))
        return [holds and self._run_holds[row.document["run_id"]] for row, holds in zip(batch, of_stage, strict=True)]

    async def _runs_hold(self, run_ids: list[str]) -> dict[str, bool]:
        """Whether runs satisfy the conditions on the run, and some stage of each run each of ``stages``."""
        if not concerns_only_pipeline(self._question.pipeline):
            runs = await self.scan(by_id("runs", run_ids))
            hold = await in_turns(lambda row: self.pipeline_holds(row.document), runs)
            run_ids = [run.document["id"] for run, holds in zip(runs, hold, strict=True) if holds]
        if not self._question.stages:
            return dict.fromkeys(run_ids, True)
        held = {run_id: self._needed.none() for run_id in run_ids}
        async for stage in self._all_stages_of(run_ids, self._needed.condition):
            if stage["run_id"] in held:
                self._needed.note(held[stage["run_id"]], stage)
        return {run_id: all(flags) for run_id, flags in held.items()}

    async def _all_stages_of(
        self, run_ids: Sequence[str], condition: ast.Condition, candidate: ast.Condition | None = None
    ) -> AsyncIterator[Document]:
        """Every stage of these runs that a store finds for a condition."""
        if not run_ids:
            return
        of_runs = ast.Test(ast.Field(("run_id",)), ast.In(tuple(run_ids)))
        after: tuple[Any, ...] | None = None
        while True:
            scan = ast.Scan(
                of="stages", stage=ast.And((of_runs, condition)), candidate=candidate, after=after, limit=MAX_BATCH
            )
            batch = await self.scan(scan)
            for row in batch:
                yield row.document
            if len(batch) < MAX_BATCH:
                return
            after = batch[-1].sort_values

    async def stages_of(self, run_ids: Sequence[str]) -> dict[str, list[Document]]:
        """The stages of these runs that satisfy the stage's condition; of each only what is needed from here on.

        A run that lacks a stage for one of the conditions under ``stages`` has none.
        """
        question = self._question
        found: dict[str, list[Document]] = {}
        held = {run_id: self._needed.none() for run_id in run_ids}
        asks_one = question.stage != ast.EVERYTHING or question.candidate is not None
        if asks_one:
            async for stage in self._all_stages_of(run_ids, question.stage, question.candidate):
                if stage["run_id"] in held and self._one_holds(stage):
                    needed = {name: stage.get(name) for name in ("id", "capture", "candidates_removed_at")}
                    found.setdefault(stage["run_id"], []).append(needed)
        if question.stages:
            open_runs = list(found) if asks_one else list(run_ids)
            async for stage in self._all_stages_of(open_runs, self._needed.condition):
                if stage["run_id"] in held:
                    self._needed.note(held[stage["run_id"]], stage)
            complete = [run_id for run_id in open_runs if all(held[run_id])]
            found = {run_id: found.get(run_id, [NO_STAGE]) for run_id in complete}
        return found


def by_id(of: ast.Collection, ids: Sequence[str]) -> ast.Scan:
    """The scan that finds documents by their ids."""
    one_of = ast.Test(ast.Field(("id",)), ast.In(tuple(ids)))
    if of == "runs":
        return ast.Scan(of=of, pipeline=one_of, limit=len(ids))
    return ast.Scan(of=of, stage=one_of, limit=len(ids))


def _pipeline_of(stage: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"id": stage["run_id"]} | (stage.get("pipeline") or {})
