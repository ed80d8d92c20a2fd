"""What a scan asks of other collections than its own.

Where few documents of the other collection satisfy their condition, their keys become part of the scan's filter. Else
the documents in hand are joined, some hundred at a time: ``$lookup`` would join every document that a question passes
over.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from pymongo.asynchronous.database import AsyncDatabase

from xray_server.query.ast import EVERYTHING, Condition, Scan
from xray_server.query.narrowing import concerns_only_pipeline
from xray_server.stores.mongo import ids, pages
from xray_server.stores.mongo.compiler import Compiler
from xray_server.stores.mongo.filters import FALSE, TRUE, Filter, all_of, says_the_project
from xray_server.stores.mongo.forms import RUNS, STAGES, Raw
from xray_server.stores.mongo.known import Known
from xray_server.stores.mongo.layout import LISTED

FEW = 1000
"""Documents of the other collection up to which a join starts from there."""

CHUNK = 500
"""Documents that are joined at once."""

NEEDED: Final = {"r": 1, pages.MARKS: 1, pages.ZONES: 1}
"""What of a document says whether it has a partner, beside its key."""

_IN_THE_OPEN: Final = {pages.MARKS: 1, pages.ZONES: 1}
Join = Callable[[list[Raw]], Awaitable[list[Raw]]]
"""Leaves out the documents that have no partner in another collection."""


class Joins:
    """What one scan asks of other collections.

    Args:
        database: The database.
        scan: The scan.
        known: The numbers that it needs.
    """

    def __init__(self, database: AsyncDatabase[Raw], scan: Scan, known: Known) -> None:
        self._database = database
        self._scan = scan
        self._known = known
        self._compiler = Compiler(known)
        self._steps: list[Join] = []
        self._has_pages: bool | None = None

    def __bool__(self) -> bool:
        """Whether documents have to be joined; known after :meth:`filter`."""
        return bool(self._steps)

    async def filter(self) -> Filter:
        """What documents of the scan's own collection must satisfy; the rest is left to :meth:`joined`."""
        if self._scan.of == "stages":
            return await self._to_runs()
        keys: set[ids.Key] | None = None
        own = self._scan.stage
        for stage in (own, *(other for other in self._scan.stages if other != own)):
            few = await self._to_stages(stage, by_pages=stage is own and self._by_pages())
            if few is not None:
                keys = few if keys is None else keys & few
            if keys is not None and not keys:
                return FALSE
        return TRUE if keys is None else {"_id": {"$in": sorted(keys, key=repr)}}

    async def joined(self, raws: list[Raw]) -> list[Raw]:
        """Those of some documents that have a partner in every other collection that the scan is about."""
        for step in self._steps:
            raws = await step(raws) if raws else raws
        return raws

    def _by_pages(self) -> bool:
        return self._scan.candidate is not None and pages.narrows(self._scan.candidate)

    async def _to_runs(self) -> Filter:
        """What stages must satisfy: that their run satisfies its condition, and some candidate its own."""
        scan = self._scan
        wanted = TRUE
        if not concerns_only_pipeline(scan.pipeline):
            of_run = all_of([{"p": self._known.project}, self._compiler.run(scan.pipeline).over])
            few = await self._keys(RUNS.collection, of_run, "_id")
            if few is None:
                self._steps.append(lambda raws: self._with_run(raws, of_run))
            else:
                wanted = {"r": {"$in": few}} if few else FALSE
        if self._by_pages():
            self._steps.append(self._with_page)
        return wanted

    async def _to_stages(self, condition: Condition, *, by_pages: bool) -> set[ids.Key] | None:
        """The runs that have a stage for which a condition holds; None where they are many: then it is a step."""
        if condition == EVERYTHING and not by_pages:
            return None
        stage = self._compiler.stage(condition).over
        if stage == FALSE:
            return set()
        of_stage = stage if says_the_project(stage) else all_of([{LISTED: self._known.itself}, stage])
        few = None if by_pages or stage == TRUE else await self._keys(STAGES.collection, of_stage, "r")
        if few is None:
            self._steps.append(lambda raws: self._with_stage(raws, stage, by_pages=by_pages))
        return None if few is None else set(few)

    async def _keys(self, collection: str, where: Filter, path: str) -> list[ids.Key] | None:
        """A field of all documents that satisfy a filter, or None where there are more than a few."""
        cursor = self._database[collection].find(where, {path: 1}, limit=FEW + 1, batch_size=FEW + 2)
        found = [raw[path] async for raw in cursor if path in raw]
        return found if len(found) <= FEW else None

    # --- steps --------------------------------------------------------------------------------------------------

    async def _with_run(self, stages: list[Raw], of_run: Filter) -> list[Raw]:
        keys = list({stage["r"] for stage in stages})
        cursor = self._database[RUNS.collection].find(all_of([{"_id": {"$in": keys}}, of_run]), {"_id": 1})
        found = {raw["_id"] async for raw in cursor}
        return [stage for stage in stages if stage["r"] in found]

    async def _with_page(self, stages: list[Raw]) -> list[Raw]:
        """The stages that have a page, in their document or in the pages' own collection, that may hold a candidate."""
        candidate = self._scan.candidate
        assert candidate is not None
        found = {stage["_id"] for stage in stages if pages.MARKS in stage and pages.may_hold(candidate, stage)}
        others = [stage["_id"] for stage in stages if stage["_id"] not in found]
        if others and await self._is_any_page_outside():
            outside = self._database[pages.COLLECTION].find({"st": {"$in": others}}, {"st": 1, **_IN_THE_OPEN})
            async for raw in outside:
                if raw["st"] not in found and pages.may_hold(candidate, raw):
                    found.add(raw["st"])
        return [stage for stage in stages if stage["_id"] in found]

    async def _is_any_page_outside(self) -> bool:
        """Whether the project has pages that do not lie in their stages; looked up once."""
        if self._has_pages is None:
            of_project = {pages.PROJECT: self._known.project}
            self._has_pages = await self._database[pages.COLLECTION].find_one(of_project, {"_id": 1}) is not None
        return self._has_pages

    async def _with_stage(self, runs: list[Raw], stage: Filter, *, by_pages: bool) -> list[Raw]:
        where = all_of([{"r": {"$in": [run["_id"] for run in runs]}}, stage])
        wanted: dict[str, Any] = NEEDED if by_pages else {"_id": 0, "r": 1}
        stages = await self._database[STAGES.collection].find(where, wanted).to_list(None)
        if by_pages:
            stages = [
                one
                for start in range(0, len(stages), CHUNK)
                for one in await self._with_page(stages[start : start + CHUNK])
            ]
        found = {one["r"] for one in stages}
        return [run for run in runs if run["_id"] in found]
