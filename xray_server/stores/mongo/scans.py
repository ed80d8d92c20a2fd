"""A scan as finds.

A scan's order and its place to go on (``after``) become a filter and a sort that an index serves. What lies in
another collection is joined here: ``$lookup`` would join every document that a question passes over.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from bson.max_key import MaxKey
from bson.min_key import MinKey
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from xray.exceptions import StoreError
from xray_server.query.ast import EVERYTHING, Metric, Scan
from xray_server.query.narrowing import concerns_only_pipeline
from xray_server.stores.base import Row
from xray_server.stores.mongo import forms
from xray_server.stores.mongo.compiler import Compiler, page_filter
from xray_server.stores.mongo.filters import FALSE, TRUE, Filter, all_of, any_of
from xray_server.stores.mongo.forms import Raw, pages_of
from xray_server.stores.mongo.order import Key, has_number, later, sort_keys

FEW = 1000
"""Documents of the other collection up to which a join starts from there."""

CHUNK = 200
"""Documents that are joined at once."""

Sort = list[tuple[str, int]]
Join = Callable[[list[Raw]], Awaitable[list[Raw]]]
"""Leaves out the documents that have no partner in another collection."""


class Scanner:
    """One scan on its way.

    Args:
        database: The database.
        project: The project.
        scan: The scan.

    Raises:
        StoreError: The store cannot sort by one of the keys.
    """

    def __init__(self, database: AsyncDatabase[Raw], project: str, scan: Scan) -> None:
        self._database = database
        self._project = project
        self._scan = scan
        self._form = forms.STAGES if scan.of == "stages" else forms.RUNS
        self._compiler = Compiler(project)
        self._keys = sort_keys(scan)
        self._joins: list[Join] = []
        if not self._keys:
            raise StoreError("A scan needs at least one sort key.")
        if scan.after is not None and len(scan.after) != len(self._keys):
            raise StoreError(f"The scan has {len(self._keys)} sort keys and {len(scan.after)} values to go on after.")

    async def rows(self) -> list[Row]:
        """What the scan finds."""
        where = await self._where()
        if where == FALSE or self._scan.limit <= 0:
            return []
        if isinstance(self._keys[0].reference, Metric):
            return await self._by_metric(where)
        return await self._read(all_of([where, self._after()]), self._keys, self._scan.limit)

    def finds(self) -> list[tuple[str, Filter, Sort]]:
        """The collection, filter and sort of every find that the scan may come down to, without joins; to be explained.

        For an order by a metric these are the documents with a value, and those without.
        """
        where = all_of([self._of_project(), self._own_condition()])
        first, sort = self._keys[0], self._sort(self._keys)
        if not isinstance(first.reference, Metric):
            return [(self._form.collection, where, sort)]
        return [
            (self._form.collection, all_of([where, has_number(first)]), sort[:1]),
            (self._form.collection, all_of([where, {first.path: {"$exists": False}}]), sort[1:]),
        ]

    # --- what to find -------------------------------------------------------------------------------------------

    def _of_project(self) -> Filter:
        project: Filter = {"_id.p": self._project}
        if not self._by_id():
            return project
        first, last = (forms.key(self._project, end) for end in (MinKey(), MaxKey()))
        return all_of([project, {"_id": {"$gte": first, "$lte": last}}])

    def _by_id(self) -> bool:
        """Whether the order is that of ids alone, which the index over ``_id`` serves: its entries are whole keys."""
        return len(self._keys) == 1 and self._keys[0].path == "_id.i"

    def _after(self) -> Filter:
        """What comes after the last row of the scan before."""
        if self._scan.after is None:
            return TRUE
        if self._by_id():
            op = "$lt" if self._keys[0].descending else "$gt"
            return {"_id": {op: forms.key(self._project, self._scan.after[0])}}
        return later(self._keys, self._scan.after)

    def _own_condition(self) -> Filter:
        """The conditions that are about the documents of the collection itself."""
        scan, compiler = self._scan, self._compiler
        if scan.of == "runs":
            return compiler.run(scan.pipeline).over
        own = [compiler.stage(scan.stage).over]
        if concerns_only_pipeline(scan.pipeline):
            own.append(compiler.stage_by_run(scan.pipeline).over)
        return all_of(own)

    async def _where(self) -> Filter:
        """The filter of the scan; what it cannot say is left to joins."""
        own = self._own_condition()
        if own == FALSE:
            return FALSE
        joined = await (self._joined_to_runs() if self._scan.of == "stages" else self._joined_to_stages())
        return FALSE if joined == FALSE else all_of([self._of_project(), own, joined])

    async def _joined_to_runs(self) -> Filter:
        """What stages must satisfy beside their own condition: that of their run, and that of some candidate."""
        scan = self._scan
        pages = TRUE if scan.candidate is None else page_filter(scan.candidate)
        if pages == FALSE:
            return FALSE
        joined = TRUE
        if not concerns_only_pipeline(scan.pipeline):
            of_run = all_of([{"_id.p": self._project}, self._compiler.run(scan.pipeline).over])
            few = await self._ids(forms.RUNS.collection, of_run, "_id")
            if few is None:
                self._joins.append(lambda raws: self._with_run(raws, of_run))
            else:
                joined = {"run_id": {"$in": [found["i"] for found in few]}} if few else FALSE
        if pages != TRUE:
            self._joins.append(lambda raws: self._with_page(raws, pages))
        return joined

    async def _joined_to_stages(self) -> Filter:
        """What runs must satisfy beside their own condition: that some stage of theirs satisfies its."""
        scan = self._scan
        pages = TRUE if scan.candidate is None else page_filter(scan.candidate)
        stage = self._compiler.stage(scan.stage).over
        if FALSE in (pages, stage):
            return FALSE
        if scan.stage == EVERYTHING and pages == TRUE:
            return TRUE
        of_stage = all_of([{"_id.p": self._project}, stage])
        few = await self._ids(forms.STAGES.collection, of_stage, "run_id") if pages == TRUE and stage != TRUE else None
        if few is None:
            self._joins.append(lambda raws: self._with_stage(raws, of_stage, pages))
            return TRUE
        keys = [forms.key(self._project, run_id) for run_id in sorted(set(few))]
        return {"_id": {"$in": keys}} if keys else FALSE

    async def _ids(self, collection: str, where: Filter, path: str) -> list[Any] | None:
        """A field of all documents that satisfy a filter, or None where there are more than a few."""
        cursor = self._collection(collection).find(where, {path: 1}, limit=FEW + 1, batch_size=FEW + 2)
        found = [raw[path] async for raw in cursor if path in raw]
        return found if len(found) <= FEW else None

    # --- joins --------------------------------------------------------------------------------------------------

    async def _with_run(self, stages: list[Raw], of_run: Filter) -> list[Raw]:
        keys = [forms.key(self._project, run_id) for run_id in sorted({stage["run_id"] for stage in stages})]
        cursor = self._collection(forms.RUNS.collection).find(all_of([{"_id": {"$in": keys}}, of_run]), {"_id": 1})
        found = {raw["_id"]["i"] async for raw in cursor}
        return [stage for stage in stages if stage["run_id"] in found]

    async def _with_page(self, stages: list[Raw], pages: Filter) -> list[Raw]:
        ids = [stage["_id"]["i"] for stage in stages]
        ranges = [pages_of(self._project, stage_id) for stage_id in ids]
        # The stages' ids beside the ranges of _id: a sharded cluster finds the shards by them.
        where = all_of([any_of(ranges), {"_id.s": {"$in": ids}}, pages])
        found = {raw["_id"]["s"] async for raw in self._collection("pages").find(where, {"_id": 1})}
        return [stage for stage in stages if stage["_id"]["i"] in found]

    async def _with_stage(self, runs: list[Raw], of_stage: Filter, pages: Filter) -> list[Raw]:
        where = all_of([{"run_id": {"$in": [run["_id"]["i"] for run in runs]}}, of_stage])
        stages = await self._collection(forms.STAGES.collection).find(where, {"run_id": 1}).to_list(None)
        if pages != TRUE:
            stages = [
                stage
                for start in range(0, len(stages), CHUNK)
                for stage in await self._with_page(stages[start : start + CHUNK], pages)
            ]
        found = {stage["run_id"] for stage in stages}
        return [run for run in runs if run["_id"]["i"] in found]

    # --- reading ------------------------------------------------------------------------------------------------

    def _collection(self, name: str) -> AsyncCollection[Raw]:
        return self._database[name]

    def _sort(self, keys: Sequence[Key]) -> Sort:
        if self._by_id():
            return [("_id", -1 if self._keys[0].descending else 1)]
        return [(key.path, -1 if key.descending else 1) for key in keys]

    async def _read(self, where: Filter, keys: Sequence[Key], limit: int) -> list[Row]:
        """The first documents that a filter and the joins let through."""
        cursor = self._collection(self._form.collection).find(where, sort=self._sort(keys))
        if not self._joins:
            return [self._row(raw) for raw in await cursor.limit(limit).batch_size(limit + 1).to_list(None)]
        rows: list[Row] = []
        async with cursor.batch_size(CHUNK):
            while len(rows) < limit:
                raws = chunk = await cursor.to_list(CHUNK)
                for join in self._joins:
                    raws = await join(raws) if raws else raws
                rows += map(self._row, raws)
                if len(chunk) < CHUNK:
                    break
        return rows[:limit]

    def _row(self, raw: Raw) -> Row:
        document = self._form.decode(raw)
        return Row(document, tuple(key.value_of(document) for key in self._keys))

    # --- the order of a metric ----------------------------------------------------------------------------------

    async def _by_metric(self, where: Filter) -> list[Row]:
        """In the order of a metric first.

        The index over metrics gives the values in order, but not what shares a value in the order of the other keys.
        So the documents come by value alone; those of the last value, which may be cut off, are found once more in
        their order. Documents without the metric are in no such index and are a group of their own.
        """
        first, rest = self._keys[0], self._keys[1:]
        after, limit = self._scan.after, self._scan.limit
        at_value = after is not None and after[0] is not None
        at_absent = after is not None and after[0] is None
        rows: list[Row] = []
        for has_value in (True, False) if first.descending else (False, True):
            wanted = limit - len(rows)
            if wanted <= 0:
                break
            if not has_value:
                if at_value and not first.descending:
                    continue
                group = all_of([where, {first.path: {"$exists": False}}])
                if at_absent and after is not None:
                    group = all_of([group, later(rest, after[1:])])
                rows += await self._read(group, rest, wanted)
            elif not (at_absent and first.descending):
                rows += await self._with_value(where, wanted, after if at_value else None)
        return rows

    async def _with_value(self, where: Filter, limit: int, after: Sequence[Any] | None) -> list[Row]:
        first, rest = self._keys[0], self._keys[1:]
        rows: list[Row] = []
        beyond = has_number(first)
        if after is not None:
            same = all_of([where, first.compare("$eq", after[0]), later(rest, after[1:])])
            rows += [] if same == FALSE else await self._read(same, rest, limit)
            beyond = first.compare("$lt" if first.descending else "$gt", after[0])
        wanted = limit - len(rows)
        if wanted <= 0:
            return rows
        found = await self._read(all_of([where, beyond]), [first], wanted)
        if len(found) < wanted:
            return rows + self._in_order(found)
        last = found[-1].sort_values[0]
        whole = [row for row in found if row.sort_values[0] != last]
        cut = await self._read(all_of([where, first.compare("$eq", last)]), rest, wanted - len(whole))
        # A document may have changed between the two.
        known = {row.document["id"] for row in rows + whole}
        return rows + self._in_order(whole) + [row for row in cut if row.document["id"] not in known]

    def _in_order(self, rows: list[Row]) -> list[Row]:
        for position in reversed(range(len(self._keys))):
            rows.sort(key=_rank(position), reverse=self._keys[position].descending)
        return rows


def _rank(position: int) -> Callable[[Row], tuple[bool, Any]]:
    return lambda row: (row.sort_values[position] is not None, row.sort_values[position])
