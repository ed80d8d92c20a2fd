"""Reading a stage's candidates: opening its pages, passing over those that cannot match, and keeping count."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from xray_server.documents import Document
from xray_server.pages import CandidatePage
from xray_server.query import ast
from xray_server.query.evaluate import Predicate, compile_condition
from xray_server.query.narrowing import PageFilter
from xray_server.query.several import rows_condition
from xray_server.query.sorting import BY_REMOVAL, REMOVED
from xray_server.query.turns import turn
from xray_server.stores.base import Row, Store

MAX_REMOVED_COUNTED = 200
"""Stages without their candidates that are counted, the latest ones; where there are more, the count ends there."""


class CandidateReader:
    """Reads candidates for one question.

    Args:
        store: The store, open.
        project: The project.
        condition: What a candidate must satisfy, or None where the question asks for none.
    """

    def __init__(self, store: Store, project: str, condition: ast.Condition | None) -> None:
        self._store = store
        self._project = project
        self._asked = condition is not None
        self._condition = condition or ast.EVERYTHING
        self.opened = 0
        """Pages that were decompressed."""
        self.passed_over = 0
        """Pages that were not, because nothing in them can match."""
        self._without_all: set[str] = set()
        self._ahead: Mapping[str, Sequence[CandidatePage]] = {}

    @functools.cached_property
    def _filter(self) -> PageFilter:
        return PageFilter(self._condition)

    @functools.cached_property
    def _holds(self) -> Predicate:
        return compile_condition(self._condition)

    @property
    def without_all(self) -> int:
        """Stages, of those asked about, whose candidates are not all there."""
        return len(self._without_all)

    async def look_ahead(self, stage_ids: Sequence[str]) -> None:
        """Read the pages of the stages that come next in one step, where there are few of each.

        Args:
            stage_ids: The ids of the stages.
        """
        if self._asked and stage_ids:
            self._ahead = await self._store.pages_of_many(self._project, stage_ids)

    @asynccontextmanager
    async def pages(self, stage_id: str, from_seq: int = 0) -> AsyncIterator[AsyncIterator[CandidatePage]]:
        """The pages of a stage, closed as soon as they are left, not whenever the garbage collector comes by."""
        pages = self._store.pages(self._project, stage_id, from_seq=from_seq)
        try:
            yield pages
        finally:
            close = getattr(pages, "aclose", None)
            if close is not None:
                await close()

    async def matching(self, page: CandidatePage) -> list[Document]:
        """The candidates of a page that satisfy the condition, each with its ``seq``."""
        if not self._filter.may_match(page):
            self.passed_over += 1
            return []
        self.opened += 1
        async with turn():
            candidates = (row | {"seq": seq} for seq, row in zip(page.seqs, page.columns().rows(), strict=True))
            return [candidate for candidate in candidates if self._holds(candidate)]

    async def has_match(self, stage: Mapping[str, Any]) -> bool:
        """Whether a stage has a candidate that satisfies the condition; true where the question asks for none."""
        if not self._asked:
            return True
        ahead = self._ahead.get(stage["id"])
        if ahead is not None:
            for page in ahead:
                if await self._matches(page):
                    self.note(stage, None)
                    return True
            self.note(stage, sum(len(page.seqs) for page in ahead))
            return False
        count = 0
        async with self.pages(stage["id"]) as pages:
            async for page in pages:
                count += len(page.seqs)
                if await self._matches(page):
                    self.note(stage, None)
                    return True
        self.note(stage, count)
        return False

    async def _matches(self, page: CandidatePage) -> bool:
        if self._filter.decides:
            found = self._filter.may_match(page)
            self.passed_over += not found
            return found
        return bool(await self.matching(page))

    def note(self, stage: Mapping[str, Any], found: int | None) -> None:
        """Keep count of the stages whose candidates are not all there.

        Args:
            stage: A stage whose candidates were asked about; its ``capture`` says how many were seen and kept.
            found: How many candidates the store has of it, or None where they were not read to the end.
        """
        capture = stage.get("capture")
        capture = capture if isinstance(capture, dict) else {}
        kept, seen = (_whole(capture.get(name)) for name in ("kept", "seen"))
        was_sampled = kept is not None and seen is not None and kept < seen
        is_short = found is not None and kept is not None and found < kept
        was_removed = stage.get("candidates_removed_at") is not None and (found is None or kept is None or is_short)
        if was_sampled or is_short or was_removed:
            self._without_all.add(stage["id"])

    async def note_removed(
        self, question: ast.Question, holds: Callable[[Sequence[Row]], Awaitable[list[bool]]]
    ) -> None:
        """Count the stages whose candidates were removed: a store that narrows by candidates does not name them.

        Args:
            question: The question; nothing is counted where it asks for no candidates.
            holds: Which stages satisfy the question's conditions on the stage and its run.
        """
        if question.candidate is None and question.returns != "candidates":
            return
        scan = ast.Scan(
            of="stages",
            pipeline=question.pipeline,
            stage=ast.And((rows_condition(question), REMOVED)),
            sort=BY_REMOVAL,
            limit=MAX_REMOVED_COUNTED,
        )
        rows = await self._store.scan(self._project, scan)
        for row, satisfied in zip(rows, await holds(rows), strict=True):
            if satisfied and row.document.get("candidates_removed_at") is not None:
                self._without_all.add(row.document["id"])


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
