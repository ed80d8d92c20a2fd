"""Reading a store from end to end, run by run, in constant memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from xray.ids import now_ms
from xray_server.documents import Document
from xray_server.pages import CandidatePage
from xray_server.query.ast import And, Compare, Condition, Field, In, Scan, SortKey, Test
from xray_server.stores.base import Store
from xray_server.transfer.lines import VERSION, candidates_line

RUNS_AT_ONCE = 50
STAGES_AT_ONCE = 200
_BY_START = (SortKey(Field(("started_at",))), SortKey(Field(("id",))))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is exported.

    Args:
        project: The project.
        label: Only of this pipeline; None means any.
        since: Only runs that started at this time or later, in milliseconds since 1970.
        until: Only runs that started before this time.
    """

    project: str
    label: str | None = None
    since: int | None = None
    until: int | None = None

    def condition(self) -> Condition:
        """What a run has to satisfy."""
        tests = (
            ("label", Compare("eq", self.label)),
            ("started_at", Compare("gte", self.since)),
            ("started_at", Compare("lt", self.until)),
        )
        return And(tuple(Test(Field((name,)), operator) for name, operator in tests if operator.value is not None))


async def runs_of(store: Store, wanted: Wanted) -> AsyncIterator[list[Document]]:
    """The runs that are wanted, the oldest first, some at a time."""
    after: tuple[Any, ...] | None = None
    while True:
        scan = Scan("runs", pipeline=wanted.condition(), sort=_BY_START, after=after, limit=RUNS_AT_ONCE)
        rows = await store.scan(wanted.project, scan)
        if rows:
            yield [row.document for row in rows]
        if len(rows) < RUNS_AT_ONCE:
            return
        after = rows[-1].sort_values


async def stages_of(store: Store, project: str, run_ids: Sequence[str]) -> AsyncIterator[Document]:
    """The stages of some runs."""
    after: tuple[Any, ...] | None = None
    while True:
        scan = Scan("stages", stage=Test(Field(("run_id",)), In(tuple(run_ids))), after=after, limit=STAGES_AT_ONCE)
        rows = await store.scan(project, scan)
        for row in rows:
            yield row.document
        if len(rows) < STAGES_AT_ONCE:
            return
        after = rows[-1].sort_values


async def everything(store: Store, wanted: Wanted) -> AsyncIterator[Document | CandidatePage]:
    """Runs, each with an ``id`` and no ``run_id``; then their stages, each before its candidate pages."""
    async for runs in runs_of(store, wanted):
        for run in runs:
            yield run
        async for stage in stages_of(store, wanted.project, [run["id"] for run in runs]):
            yield stage
            async for page in store.pages(wanted.project, stage["id"]):
                yield page


async def lines_of(store: Store, wanted: Wanted) -> AsyncIterator[dict[str, Any]]:
    """The lines of an export, from the first to the last.

    Args:
        store: The store, open; what is written meanwhile may be in the export or not.
        wanted: What is exported.

    Raises:
        StoreError: The data could not be read.
    """
    counts = {"runs": 0, "stages": 0, "candidates": 0}
    yield {"xray_export": VERSION, "project": wanted.project, "exported_at": now_ms()}
    for stage_type, metrics in (await store.declarations(wanted.project)).items():
        yield {"kind": "declarations", "stage_type": stage_type, "metrics": metrics}
    async for found in everything(store, wanted):
        if isinstance(found, CandidatePage):
            counts["candidates"] += len(found.seqs)
            yield candidates_line(found)
        elif "run_id" in found:
            counts["stages"] += 1
            yield {"kind": "stage", "stage": found}
        else:
            counts["runs"] += 1
            yield {"kind": "run", "run": found}
    yield {"kind": "end", **counts}
