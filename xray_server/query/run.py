"""Answering a question from any store: scan, evaluate, open candidate pages, stop at a budget.

A store narrows (see ``Store.scan``); here every document that it returns is evaluated again, so that all stores give
the same answer.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xray_server.documents import Document
from xray_server.query import ast
from xray_server.query.candidates import CandidateReader
from xray_server.query.evaluate import compile_condition
from xray_server.query.narrowing import concerns_only_pipeline
from xray_server.query.several import Needed, narrowest, rows_condition
from xray_server.query.sorting import DEFAULT_SORT
from xray_server.stores.base import Row, ScanCut, Store

PAGE_BUDGET = 2000
DOCUMENT_BUDGET = 50_000
TIME_BUDGET_S = 20.0
MAX_BATCH = 500
"""Documents that are asked of the store at once, at the most."""

_RUNS_AT_ONCE = 100
"""Runs whose stages are looked up at once."""

_LOOK_AHEAD = 32
"""Stages whose candidate pages are read at once, where they have few."""

_NO_STAGE: Document = {}
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


@dataclass(frozen=True, slots=True)
class Answer:
    """One page of an answer.

    Args:
        rows: Runs, stages, or candidates. A candidate has its columns and ``candidate_id``, ``seq``, ``stage_id``,
            ``stage_name``, ``stage_type``, ``run_id`` and ``label``.
        next: ``Question.after`` for the next page, or None where there are no more rows. There may turn out to be
            none behind the last full page.
        coverage: What the answer rests on.
    """

    rows: list[Document]
    next: tuple[Any, ...] | None
    coverage: Coverage


async def answer(
    store: Store,
    project: str,
    question: ast.Question,
    *,
    page_budget: int = PAGE_BUDGET,
    document_budget: int = DOCUMENT_BUDGET,
    time_budget_s: float = TIME_BUDGET_S,
) -> Answer:
    """Answer one page of a question.

    A budget is looked at between candidate pages where candidates are returned, else between stages or between
    runs: one of these is always gone through, so that following ``next`` comes to an end.

    Args:
        store: The store, open.
        project: The project.
        question: The question; its ``after`` says where to go on.
        page_budget: How many candidate pages to decompress.
        document_budget: How many runs and stages to read, and candidate pages to pass over.
        time_budget_s: How long to search.

    Raises:
        StoreError: The data could not be read.
    """
    search = Search(store, project, question, page_budget, document_budget, time.monotonic() + time_budget_s)
    await search.note_removed()
    if question.returns == "runs":
        return await search.runs()
    if question.returns == "candidates":
        return await search.candidates()
    return await search.stages()


@dataclass(slots=True)
class _Found:
    """A document of a scan: whether it satisfies the conditions on documents, and whether none come after it."""

    row: Row
    satisfied: bool
    last: bool


class Search:
    """One page of one question, on its way to an answer.

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
        self._deadline = deadline
        self._sort = question.sort or DEFAULT_SORT
        self._pipeline_holds = compile_condition(question.pipeline)
        self._stage_holds = compile_condition(rows_condition(question))
        self._one_holds = compile_condition(question.stage)
        self._needed = Needed(question.stages)
        self._reader = CandidateReader(store, project, question.candidate)
        self._run_holds: dict[str, bool] = {}
        self._rows: list[Document] = []
        self._scanned = 0
        self._cut = False
        self.spent = False
        """Whether the budget ended the search."""

    async def each_stage(self) -> AsyncIterator[Document]:
        """Every stage that the question asks about, until the budget is spent; then :attr:`spent` says so."""
        async for found in self._scan_stages(self._question.after, MAX_BATCH):
            if found.satisfied and await self._reader.has_match(found.row.document):
                yield found.row.document
            if self._is_spent() and not found.last:
                self.spent = True
                return

    def coverage(self, matched: int, *, complete: bool) -> Coverage:
        """What the search rests on so far.

        Args:
            matched: How many rows it has.
            complete: Whether it came to its end.
        """
        return Coverage(
            matched=matched,
            scanned=self._scanned,
            pages_opened=self._reader.opened,
            without_all_candidates=self._reader.without_all,
            complete=complete,
        )

    async def note_removed(self) -> None:
        """Count, on the first page, the stages whose candidates nobody can look at any more."""
        if self._question.after is None:
            await self._reader.note_removed(self._question, self._satisfied)

    # --- the three kinds of answers -----------------------------------------------------------------------------

    async def stages(self) -> Answer:
        """A page of stages."""
        async for found in self._scan_stages(self._question.after, self._question.limit + 1):
            if found.satisfied and await self._reader.has_match(found.row.document):
                self._rows.append(found.row.document)
            stopped = self._stop_after(found.row.sort_values, last=found.last)
            if stopped:
                return stopped
        return self._answer(None)

    async def runs(self) -> Answer:
        """A page of runs."""
        question = self._question
        by_stages = bool(question.stages) or question.stage != ast.EVERYTHING or question.candidate is not None
        after, size = question.after, question.limit + 1
        while True:
            size = min(size, _RUNS_AT_ONCE if by_stages else MAX_BATCH)
            scan = ast.Scan(
                of="runs",
                pipeline=question.pipeline,
                stage=narrowest(question),
                candidate=question.candidate,
                stages=question.stages,
                sort=self._sort,
                after=after,
                limit=size,
            )
            batch = await self._scan_until_deadline(scan)
            possible = [row.document["id"] for row in batch if self._pipeline_holds(row.document)]
            stages = await self._stages_of(possible) if by_stages else {run_id: [_NO_STAGE] for run_id in possible}
            for position, row in enumerate(batch):
                if position % _LOOK_AHEAD == 0:
                    next_ones = batch[position : position + _LOOK_AHEAD]
                    of_runs = (stage for one in next_ones for stage in stages.get(one.document["id"], ()))
                    await self._reader.look_ahead([stage["id"] for stage in of_runs if stage])
                for stage in stages.get(row.document["id"], ()):
                    if await self._reader.has_match(stage):
                        self._rows.append(row.document)
                        break
                stopped = self._stop_after(row.sort_values, last=self._is_last(batch, position, size))
                if stopped:
                    return stopped
            if len(batch) < size:
                return self._answer(None)
            after, size = batch[-1].sort_values, size * 2

    async def candidates(self) -> Answer:
        """A page of candidates."""
        after = self._question.after
        if after is not None:
            *stage_values, seq = after
            after = tuple(stage_values)
            if seq is not None:
                # The stage itself is not after its own sort values; and these may have changed since.
                rows = await self._scan(_by_id("stages", [after[-1]]))
                for row, satisfied in zip(rows, await self._satisfied(rows), strict=True):
                    if satisfied:
                        stopped = await self._candidates_of(row.document, after, seq + 1)
                        if stopped:
                            return stopped
        async for found in self._scan_stages(after, min(self._question.limit, 50)):
            position = found.row.sort_values
            if found.satisfied:
                stopped = await self._candidates_of(found.row.document, position, 0)
                if stopped:
                    return stopped
            if self._is_spent():
                return self._answer(None if found.last else (*position, None))
        return self._answer(None)

    async def _candidates_of(self, stage: Document, position: tuple[Any, ...], from_seq: int) -> Answer | None:
        pipeline = stage.get("pipeline") or {}
        context = {
            "stage_id": stage["id"],
            "stage_name": stage.get("name"),
            "stage_type": stage.get("type"),
            "run_id": stage.get("run_id"),
            "label": pipeline.get("label"),
        }
        count = 0
        async with self._reader.pages(stage["id"], from_seq) as pages:
            async for page in pages:
                count += len(page.seqs)
                for candidate in await self._reader.matching(page):
                    if candidate["seq"] < from_seq:
                        continue
                    self._rows.append(candidate | context)
                    if len(self._rows) == self._question.limit:
                        self._reader.note(stage, None)
                        return self._answer((*position, candidate["seq"]))
                if self._is_spent() and page.seqs:
                    self._reader.note(stage, None)
                    return self._answer((*position, page.seqs[-1]))
        self._reader.note(stage, None if from_seq else count)
        return None

    # --- scanning -----------------------------------------------------------------------------------------------

    async def _scan(self, scan: ast.Scan) -> Sequence[Row]:
        rows = await self._store.scan(self._project, scan)
        self._scanned += len(rows)
        return rows

    async def _scan_until_deadline(self, scan: ast.Scan) -> Sequence[Row]:
        """The same; where time is up in between, what was found so far, and :attr:`_cut` says so."""
        try:
            return await self._scan(replace(scan, deadline=self._deadline))
        except ScanCut as cut:
            if not cut.rows:  # there is nowhere to go on from
                raise
            self._cut = True
            self._scanned += len(cut.rows)
            return cut.rows

    async def _scan_stages(self, after: tuple[Any, ...] | None, size: int) -> AsyncIterator[_Found]:
        """All stages that the store finds, in order; in batches that grow while they are being used up."""
        question = self._question
        while True:
            size = min(size, MAX_BATCH)
            scan = ast.Scan(
                of="stages",
                pipeline=question.pipeline,
                stage=rows_condition(question),
                candidate=question.candidate,
                sort=self._sort,
                after=after,
                limit=size,
            )
            batch = await self._scan_until_deadline(scan)
            satisfied = await self._satisfied(batch)
            for position, row in enumerate(batch):
                if position % _LOOK_AHEAD == 0 and question.returns != "candidates":
                    next_ones = range(position, min(position + _LOOK_AHEAD, len(batch)))
                    await self._reader.look_ahead([batch[one].document["id"] for one in next_ones if satisfied[one]])
                yield _Found(row, satisfied[position], last=self._is_last(batch, position, size))
            if len(batch) < size:
                return
            after, size = batch[-1].sort_values, size * 2

    async def _satisfied(self, batch: Sequence[Row]) -> list[bool]:
        """Which stages of a batch satisfy the conditions on the stage and its run."""
        of_stage = [self._stage_holds(row.document) for row in batch]
        if concerns_only_pipeline(self._question.pipeline):
            if self._question.pipeline != ast.EVERYTHING:
                of_stage = [
                    holds and self._pipeline_holds(_pipeline_of(row.document))
                    for row, holds in zip(batch, of_stage, strict=True)
                ]
            if not self._question.stages:
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
            runs = await self._scan(_by_id("runs", run_ids))
            run_ids = [run.document["id"] for run in runs if self._pipeline_holds(run.document)]
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
            batch = await self._scan(scan)
            for row in batch:
                yield row.document
            if len(batch) < MAX_BATCH:
                return
            after = batch[-1].sort_values

    async def _stages_of(self, run_ids: Sequence[str]) -> dict[str, list[Document]]:
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
            found = {run_id: found.get(run_id, [_NO_STAGE]) for run_id in complete}
        return found

    def _is_last(self, batch: Sequence[Row], position: int, size: int) -> bool:
        """Whether no document comes after this one."""
        return len(batch) < size and position == len(batch) - 1 and not self._cut

    # --- stopping -----------------------------------------------------------------------------------------------

    def _is_spent(self) -> bool:
        reader = self._reader
        return (
            self._cut
            or reader.opened >= self._page_budget
            or self._scanned + reader.passed_over >= self._document_budget
            or time.monotonic() >= self._deadline
        )

    def _stop_after(self, position: tuple[Any, ...], *, last: bool) -> Answer | None:
        """The answer, where it ends with the document at this position."""
        if len(self._rows) == self._question.limit or self._is_spent():
            return self._answer(None if last else position)
        return None

    def _answer(self, next_: tuple[Any, ...] | None) -> Answer:
        coverage = self.coverage(len(self._rows), complete=next_ is None or len(self._rows) == self._question.limit)
        return Answer(self._rows, next_, coverage)


def _by_id(of: ast.Collection, ids: Sequence[str]) -> ast.Scan:
    one_of = ast.Test(ast.Field(("id",)), ast.In(tuple(ids)))
    if of == "runs":
        return ast.Scan(of=of, pipeline=one_of, limit=len(ids))
    return ast.Scan(of=of, stage=one_of, limit=len(ids))


def _pipeline_of(stage: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"id": stage["run_id"]} | (stage.get("pipeline") or {})
