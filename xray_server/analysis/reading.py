"""Reading runs out of a store, within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xray.ids import is_id
from xray_server.analysis.features import columns_for
from xray_server.analysis.record import RunRecord, StageRecord
from xray_server.documents import Document
from xray_server.errors import ApiError, not_found
from xray_server.pages import CandidatePage, join_columns
from xray_server.query.ast import EVERYTHING, And, Compare, Condition, Field, In, Not, Scan, SortKey, Test
from xray_server.stores.base import Sighting, Store

MAX_CANDIDATES = 500_000
"""Candidates of one run that an analysis reads; beyond them a stage counts as one that is not kept."""

BATCH = 500
STAGES_AT_ONCE = 16
"""Stages whose candidates are read at the same time."""

STAGES_FOR_COVERAGE = 200
"""So many of the latest stages say whether candidates are kept at all."""

MAX_HISTORY_CANDIDATES = 2_000
"""Larger stages are read for their metrics alone, or in part, where many stages are read."""

ENOUGH_RUNS = 40
"""Where a version has so many runs of its own, it is compared with these alone."""

_STARTED = Field(("started_at",))


@dataclass(slots=True)
class Sightings:
    """Where a candidate was seen.

    Args:
        rows: Stage, row, and whether that stage lost it.
        complete: Whether the search came to its end.
    """

    rows: list[tuple[Document, dict[str, Any], bool]] = field(default_factory=list)
    complete: bool = True


class Reader:
    """Reads what an analysis needs.

    Args:
        store: The store, open.
        project: The project.
    """

    def __init__(self, store: Store, project: str) -> None:
        self._store = store
        self._project = project

    async def run(self, run_id: str, *, candidates: bool = True) -> RunRecord:
        """A run with its stages.

        Args:
            run_id: The run's id.
            candidates: Whether to read the candidates too.

        Raises:
            ApiError: There is no such run.
            StoreError: The data could not be read.
        """
        documents = await self.runs(equals("id", run_id), limit=1) if is_id(run_id) else []
        if not documents:
            hint = None if is_id(run_id) else "Look for your own id with /v1/runs?key=…"
            raise not_found(f"There is no run '{run_id:.100}'.", hint)
        stages = await self.stages(stage=equals("run_id", run_id))
        left = MAX_CANDIDATES
        records = []
        for document in stages:
            record = await self.stage(document, left) if candidates else StageRecord(document)
            left -= len(record.columns)
            records.append(record)
        return RunRecord(documents[0], records)

    async def stage(
        self, document: Mapping[str, Any], at_most: int = MAX_CANDIDATES, only: Container[str] | None = None
    ) -> StageRecord:
        """A stage with its candidates.

        Args:
            document: The stage's document.
            at_most: Of a stage with more candidates none are read.
            only: What is wanted of each candidate, beside its id; everything by default.
        """
        pages: list[CandidatePage] = []
        async for page in self._pages(document["id"]):
            at_most -= len(page.ids)
            if at_most < 0:
                return StageRecord(document)
            pages.append(page)
            # Decompressing is work on the event loop's thread: let others have it in between.
            await asyncio.sleep(0)
        return StageRecord(document, columns=join_columns(pages, only))

    async def sightings(
        self, candidate_id: str, *, label: str | None, since: int | None, until: int | None, limit: int
    ) -> Sightings:
        """The rows of a candidate in all stages of some runs, the latest runs first.

        Args:
            candidate_id: The candidate's id.
            label: Only in runs of this pipeline; None means any.
            since: Only in runs that started then or later, in milliseconds since 1970.
            until: Only in runs that started before.
            limit: After so many stages that have it the search ends.
        """
        found = Sightings()
        stages: set[str] = set()
        after: tuple[int | None, str, int] | None = None
        while True:
            some = await self._store.sightings(
                self._project, candidate_id, label=label, since=since, until=until, after=after, limit=BATCH
            )
            for sighting in some:
                stage_id = sighting.stage["id"]
                if stage_id not in stages and len(stages) >= limit:
                    found.complete = False
                    return found
                stages.add(stage_id)
                found.rows += await self._rows_of(sighting, candidate_id)
                # Opening a page is work on the event loop's thread: let others have it in between.
                await asyncio.sleep(0)
            if len(some) < BATCH:
                return found
            after = some[-1].key

    async def _rows_of(self, sighting: Sighting, candidate_id: str) -> list[tuple[Document, dict[str, Any], bool]]:
        """The rows of a candidate in a page: the stage, the row, and whether the stage lost it.

        Where what became of the others decides that, all are looked at; of a very large stage those of the page.
        """
        columns = sighting.page.columns()
        places = [place for place, each in enumerate(columns.candidate_id) if each == candidate_id]
        own = list(columns.picked(places).rows())
        record = StageRecord(sighting.stage, own)
        if not record.is_decided_by(own):
            has_others = len(columns) < record.seen <= MAX_HISTORY_CANDIDATES
            record = await self.stage(sighting.stage) if has_others else StageRecord(sighting.stage, columns=columns)
        return [(sighting.stage, row, record.lost(row)) for row in own]

    async def without_all(self, *, label: str | None, since: int | None, until: int | None) -> tuple[int, int]:
        """Of the latest stages of some runs, how many do not hold all their candidates, and how many were looked at.

        Args:
            label: As in :meth:`sightings`, like the others.
            since: As above.
            until: As above.
        """
        started = Field(("pipeline", "started_at"))
        condition = all_of(
            None if since is None else Test(started, Compare("gte", since)),
            None if until is None else Test(started, Compare("lt", until)),
            None if label is None else Test(Field(("pipeline", "label")), Compare("eq", label)),
        )
        latest = SortKey(started, descending=True)
        stages = await self.stages(stage=condition, sort=(latest,), limit=STAGES_FOR_COVERAGE)
        return sum(1 for stage in stages if not StageRecord(stage).says_all_are_kept), len(stages)

    async def history_of(self, run: Document, *, limit: int, version: str | None = None) -> list[RunRecord]:
        """Other runs of the same pipeline that have ended, the latest before it first, then the next ones after it.

        Of its own version where that has enough of them by itself.

        Args:
            run: The run.
            limit: How many at the most.
            version: Only runs of this version.
        """
        wanted = version if version is not None else run.get("version")
        found: list[Document] = []
        if wanted is not None:
            found = await self._neighbours(run, limit, equals("version", wanted))
        if version is None and len(found) < ENOUGH_RUNS:
            found = await self._neighbours(run, limit, EVERYTHING)
        stages = await self.stages_of([other["id"] for other in found])
        documents = [document for other in found for document in stages[other["id"]]]
        of_run: dict[str, list[StageRecord]] = {other["id"]: [] for other in found}
        for start in range(0, len(documents), STAGES_AT_ONCE):
            some = documents[start : start + STAGES_AT_ONCE]
            for record in await asyncio.gather(*map(self._for_history, some)):
                of_run[record.document["run_id"]].append(record)
        return [RunRecord(other, of_run[other["id"]]) for other in found]

    async def _neighbours(self, run: Document, limit: int, condition: Condition) -> list[Document]:
        label = run.get("label")
        same = all_of(equals("label", label), condition, Not(equals("id", run["id"])), Not(equals("status", "running")))
        at = run.get("started_at") or 0
        found: list[Document] = []
        for op, descending in (("lte", True), ("gt", False)):
            near = all_of(same, Test(_STARTED, Compare(op, at)))  # type: ignore[arg-type]  # one of the operators
            key = SortKey(_STARTED, descending=descending)
            if len(found) < limit:
                found += await self.runs(near, sort=(key,), limit=limit - len(found))
        return found

    async def _for_history(self, document: Document) -> StageRecord:
        """A stage of the history with what features are made of; of a large one its metrics have to do."""
        return await self.stage(document, MAX_HISTORY_CANDIDATES, columns_for(document.get("type")))

    async def runs(self, pipeline: Condition, *, sort: Sequence[SortKey] = (), limit: int = BATCH) -> list[Document]:
        """Runs that satisfy a condition on the schema's own scalar fields.

        Args:
            pipeline: The condition.
            sort: The order; by id by default.
            limit: How many at the most.
        """
        return await self._scan(Scan(of="runs", pipeline=pipeline, sort=(*sort, _BY_ID), limit=limit), limit)

    async def stages(
        self,
        *,
        pipeline: Condition = EVERYTHING,
        stage: Condition = EVERYTHING,
        sort: Sequence[SortKey] = (),
        limit: int = 50_000,
    ) -> list[Document]:
        """Stages that satisfy conditions on the schema's own scalar fields and on metrics.

        Args:
            pipeline: The condition on their runs.
            stage: The condition on the stages.
            sort: The order; by id by default.
            limit: How many at the most.
        """
        scan = Scan(of="stages", pipeline=pipeline, stage=stage, sort=(*sort, _BY_ID), limit=limit)
        return await self._scan(scan, limit)

    async def stages_of(self, run_ids: Sequence[str]) -> dict[str, list[Document]]:
        """Run id → its stages."""
        found: dict[str, list[Document]] = {run_id: [] for run_id in run_ids}
        for start in range(0, len(run_ids), 50):
            some = tuple(run_ids[start : start + 50])
            for document in await self.stages(stage=Test(Field(("run_id",)), In(some))):
                if document["run_id"] in found:
                    found[document["run_id"]].append(document)
        return found

    async def _scan(self, scan: Scan, limit: int) -> list[Document]:
        found: list[Document] = []
        after: tuple[Any, ...] | None = None
        while len(found) < limit:
            size = min(BATCH, limit - len(found))
            rows = await self._store.scan(
                self._project,
                Scan(scan.of, scan.pipeline, scan.stage, None, scan.sort, after, size),
            )
            found += [row.document for row in rows]
            if len(rows) < size:
                break
            after = rows[-1].sort_values
        return found

    async def _pages(self, stage_id: str) -> AsyncIterator[CandidatePage]:
        pages = self._store.pages(self._project, stage_id)
        try:
            async for page in pages:
                yield page
        finally:
            close = getattr(pages, "aclose", None)
            if close is not None:
                await close()


def equals(name: str, value: Any) -> Condition:
    """A condition that a scalar field has this value."""
    return Test(Field((name,)), Compare("eq", value))


def all_of(*conditions: Condition | None) -> Condition:
    """A condition that all of these hold; None does not count."""
    return And(tuple(condition for condition in conditions if condition is not None))


def one_stage(run: RunRecord, wanted: str) -> StageRecord:
    """The stage of a run with this id, path or (where only one has it) name.

    Args:
        run: The run.
        wanted: What was asked for.

    Raises:
        ApiError: There is none, or several have the name.
    """
    for stage in run.stages:
        if wanted in (stage.id, stage.path):
            return stage
    named = [stage for stage in run.stages if stage.name == wanted]
    if len(named) == 1:
        return named[0]
    paths = ", ".join(stage.path for stage in run.stages)
    if named:
        raise ApiError(
            f"{len(named)} stages of the run are named '{wanted:.100}'.",
            status=422,
            code="ambiguous_stage",
            path="stage",
            hint=f"Give a path: {', '.join(stage.path for stage in named)}.",
        )
    raise not_found(f"The run has no stage '{wanted:.100}'.", f"It has {paths}." if paths else "It has no stages.")


_BY_ID = SortKey(Field(("id",)))
