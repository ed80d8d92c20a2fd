"""Answering a question from any store: stages, runs or candidates, a page at a time."""

from __future__ import annotations

import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from xray_server.documents import Document
from xray_server.query import ast
from xray_server.query.search import LOOK_AHEAD, MAX_BATCH, NO_STAGE, Coverage, Search, by_id
from xray_server.query.several import narrowest
from xray_server.query.turns import in_turns
from xray_server.stores.base import Store

PAGE_BUDGET = 2000
DOCUMENT_BUDGET = 50_000
TIME_BUDGET_S = 20.0

_RUNS_AT_ONCE = 100
"""Runs whose stages are looked up at once."""


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
    page = _Page(search, question)
    if question.returns == "runs":
        return await page.runs()
    if question.returns == "candidates":
        return await page.candidates()
    return await page.stages()


class _Page:
    """One page of one question, on its way to an answer.

    Args:
        search: What the question finds.
        question: The question.
    """

    def __init__(self, search: Search, question: ast.Question) -> None:
        self._search = search
        self._question = question
        self._rows: list[Document] = []

    async def stages(self) -> Answer:
        """A page of stages."""
        if self._question.candidate is None:
            return await self._stages_by_themselves()
        async with aclosing(self._search.scan_stages(self._question.after, self._question.limit + 1)) as stages:
            async for found in stages:
                if found.satisfied and await self._search.reader.has_match(found.row.document):
                    self._rows.append(found.row.document)
                stopped = self._stop_after(found.row.sort_values, last=found.last)
                if stopped:
                    return stopped
        return self._answer(self._search.passed)

    async def _stages_by_themselves(self) -> Answer:
        """A page of stages whose candidates are not asked about."""
        limit = self._question.limit
        async with aclosing(self._search.scan_some(self._question.after, limit + 1)) as batches:
            async for some in batches:
                for place, row in enumerate(some.rows):
                    if some.satisfied[place]:
                        self._rows.append(row.document)
                        if len(self._rows) == limit:
                            return self._answer(None if some.last and row is some.rows[-1] else row.sort_values)
                if self._search.is_spent():
                    return self._answer(None if some.last else some.rows[-1].sort_values)
        return self._answer(self._search.passed)

    async def runs(self) -> Answer:
        """A page of runs."""
        question = self._question
        by_stages = bool(question.stages) or question.stage != ast.EVERYTHING or question.candidate is not None
        after, size = question.after, question.limit + 1
        only = await self._search.sighted()
        while True:
            size = min(size, _RUNS_AT_ONCE if by_stages else MAX_BATCH)
            scan = ast.Scan(
                of="runs",
                pipeline=question.pipeline if only is None else ast.And((question.pipeline, only.runs)),
                stage=narrowest(question),
                candidate=question.candidate,
                stages=question.stages,
                sort=self._search.sort,
                after=after,
                limit=size,
                deadline=self._search.deadline,
            )
            batch = await self._search.scan_until_deadline(scan)
            decided = question.candidate is None and self._search.is_decided(scan, batch)
            if decided:
                hold = [True] * len(batch)
            else:
                hold = await in_turns(lambda row: self._search.pipeline_holds(row.document), batch)
            possible = [row.document["id"] for row, holds in zip(batch, hold, strict=True) if holds]
            if by_stages and not decided:
                stages = await self._search.stages_of(possible)
            else:
                stages = {run_id: [NO_STAGE] for run_id in possible}
            for position, row in enumerate(batch):
                if position % LOOK_AHEAD == 0:
                    next_ones = batch[position : position + LOOK_AHEAD]
                    of_runs = (stage for one in next_ones for stage in stages.get(one.document["id"], ()))
                    await self._search.look_ahead(of_runs)
                for stage in stages.get(row.document["id"], ()):
                    if await self._search.reader.has_match(stage):
                        self._rows.append(row.document)
                        break
                stopped = self._stop_after(row.sort_values, last=self._search.is_last(batch, position, size))
                if stopped:
                    return stopped
            if len(batch) < size:
                return self._answer(self._search.passed)
            after, size = batch[-1].sort_values, size * 2

    async def candidates(self) -> Answer:
        """A page of candidates."""
        after = self._question.after
        if after is not None:
            *stage_values, seq = after
            after = tuple(stage_values)
            if seq is not None:
                # The stage itself is not after its own sort values; and these may have changed since.
                rows = await self._search.scan(by_id("stages", [after[-1]]))
                for row, satisfied in zip(rows, await self._search.satisfied(rows), strict=True):
                    if satisfied:
                        stopped = await self._candidates_of(row.document, after, seq + 1)
                        if stopped:
                            return stopped
        async with aclosing(self._search.scan_stages(after, min(self._question.limit, 50))) as stages:
            async for found in stages:
                position = found.row.sort_values
                if found.satisfied:
                    stopped = await self._candidates_of(found.row.document, position, 0)
                    if stopped:
                        return stopped
                if self._search.is_spent():
                    return self._answer(None if found.last else (*position, None))
        passed = self._search.passed
        return self._answer(None if passed is None else (*passed, None))

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
        async with self._search.reader.pages(stage["id"], from_seq) as pages:
            async for page in pages:
                if not page.seqs or page.seqs[-1] < from_seq:
                    continue  # a store may begin with the page before; it was gone through already
                count += len(page.seqs)
                for candidate in await self._search.reader.matching(page):
                    if candidate["seq"] < from_seq:
                        continue
                    self._rows.append(candidate | context)
                    if len(self._rows) == self._question.limit:
                        self._search.reader.note(stage, None)
                        return self._answer((*position, candidate["seq"]))
                if self._search.is_spent():
                    self._search.reader.note(stage, None)
                    return self._answer((*position, page.seqs[-1]))
        self._search.reader.note(stage, None if from_seq else count)
        return None

    def _stop_after(self, position: tuple[Any, ...], *, last: bool) -> Answer | None:
        """The answer, where it ends with the document at this position."""
        if len(self._rows) == self._question.limit or self._search.is_spent():
            return self._answer(None if last else position)
        return None

    def _answer(self, next_: tuple[Any, ...] | None) -> Answer:
        coverage = self._search.coverage(
            len(self._rows), complete=next_ is None or len(self._rows) == self._question.limit
        )
        return Answer(self._rows, next_, coverage)
