"""A scan as finds.

A scan's order and its place to go on (``after``) become filters and sorts that indexes serve. What lies in another
collection is joined here: ``$lookup`` would join every document that a question passes over.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from xray_server.query.ast import EVERYTHING, Metric, Scan
from xray_server.query.narrowing import concerns_only_pipeline
from xray_server.stores.base import Row
from xray_server.stores.mongo import ids, pages
from xray_server.stores.mongo.codec import Codec
from xray_server.stores.mongo.compiler import Compiler, about_the_copy, says_the_project
from xray_server.stores.mongo.filters import FALSE, TRUE, Filter, all_of, any_of
from xray_server.stores.mongo.forms import LISTED, RUNS, STAGES, Raw
from xray_server.stores.mongo.known import Known, Wanted
from xray_server.stores.mongo.order import Key, later, sort_keys

FEW = 1000
"""Documents of the other collection up to which a join starts from there."""

CHUNK = 200
"""Documents that are joined at once."""

Sort = list[tuple[str, int]]
_IN_THE_OPEN = {pages.MARKS: 1, pages.ZONES: 1}
"""What of a page says whether it may hold a candidate."""
Join = Callable[[list[Raw]], Awaitable[list[Raw]]]
"""Leaves out the documents that have no partner in another collection."""


class Scanner:
    """One scan on its way; made by :meth:`of`.

    Args:
        codec: Decodes.
        database: The database.
        scan: The scan.
        known: The numbers that the scan needs.

    Raises:
        StoreError: The store cannot sort by one of the keys.
    """

    def __init__(self, codec: Codec, database: AsyncDatabase[Raw], scan: Scan, known: Known) -> None:
        self._codec = codec
        self._database = database
        self._scan = scan
        self._known = known
        self._form = STAGES if scan.of == "stages" else RUNS
        self._compiler = Compiler(known)
        self._keys = sort_keys(scan, known)
        self._joins: list[Join] = []

    @classmethod
    async def of(cls, codec: Codec, database: AsyncDatabase[Raw], project: str, scan: Scan) -> Scanner:
        """Look up what a scan needs.

        Raises:
            StoreError: The store cannot sort by one of the keys.
        """
        wanted = Wanted()
        wanted.condition(scan.stage, STAGES)
        wanted.condition(scan.pipeline, RUNS)
        wanted.condition(about_the_copy(scan.pipeline), STAGES)
        for key in scan.sort:
            wanted.order(key.reference, STAGES if scan.of == "stages" else RUNS)
        return cls(codec, database, scan, await wanted.look_up(codec.words, database, project))

    async def rows(self) -> list[Row]:
        """What the scan finds."""
        where = await self._where()
        if where == FALSE or self._scan.limit <= 0:
            return []
        return await self._ordered(where, self._keys, self._scan.after, self._scan.limit)

    def finds(self) -> list[tuple[str, Filter, Sort]]:
        """The collection, filter and sort of the finds that the scan may come down to, without joins; to be explained.

        For an order by a metric these are the documents with a value, and those without.
        """
        where = self._of_collection([self._own_condition()])
        first, rest = self._keys[0], self._keys[1:]
        if first.is_id:
            return [(self._form.collection, all_of([where, self._keys_of_project(1)]), _sort([first]))]
        if isinstance(first.reference, Metric):
            with_value = self._of_collection([self._own_condition(), first.has_value()])
            return [
                (self._form.collection, with_value, _sort([first])),
                (self._form.collection, all_of([where, first.has_none()]), _sort(rest)),
            ]
        walked = first.is_walked or first.is_word
        return [(self._form.collection, where, _sort([first] if walked else self._keys))]

    # --- what to find -------------------------------------------------------------------------------------------

    def _of_collection(self, parts: Sequence[Filter]) -> Filter:
        """All of some filters, for documents of the project only."""
        where = all_of(parts)
        if where == FALSE or says_the_project(where, self._known.project):
            return where
        return all_of([self._of_project(), where])

    def _of_project(self) -> Filter:
        return {LISTED: self._known.itself} if self._form is STAGES else {"p": self._known.project}

    def _keys_of_project(self, kind: int) -> Filter:
        return ids.ranges(self._known.project)[kind]

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
        return FALSE if joined == FALSE else self._of_collection([own, joined])

    async def _joined_to_runs(self) -> Filter:
        """What stages must satisfy beside their own condition: that of their run, and that of some candidate."""
        scan = self._scan
        joined = TRUE
        if not concerns_only_pipeline(scan.pipeline):
            of_run = all_of([{"p": self._known.project}, self._compiler.run(scan.pipeline).over])
            few = await self._ids(RUNS.collection, of_run, "_id")
            if few is None:
                self._joins.append(lambda raws: self._with_run(raws, of_run))
            else:
                joined = {"r": {"$in": few}} if few else FALSE
        if scan.candidate is not None and pages.narrows(scan.candidate):
            self._joins.append(self._with_page)
        return joined

    async def _joined_to_stages(self) -> Filter:
        """What runs must satisfy beside their own condition: that some stage of theirs satisfies its."""
        scan = self._scan
        by_pages = scan.candidate is not None and pages.narrows(scan.candidate)
        stage = self._compiler.stage(scan.stage).over
        if stage == FALSE:
            return FALSE
        if scan.stage == EVERYTHING and not by_pages:
            return TRUE
        of_stage = (
            stage if says_the_project(stage, self._known.project) else all_of([{LISTED: self._known.itself}, stage])
        )
        few = None if by_pages or stage == TRUE else await self._ids(STAGES.collection, of_stage, "r")
        if few is None:
            self._joins.append(lambda raws: self._with_stage(raws, stage, by_pages=by_pages))
            return TRUE
        return {"_id": {"$in": sorted(set(few), key=repr)}} if few else FALSE

    async def _ids(self, collection: str, where: Filter, path: str) -> list[ids.Key] | None:
        """A field of all documents that satisfy a filter, or None where there are more than a few."""
        cursor = self._database[collection].find(where, {path: 1}, limit=FEW + 1, batch_size=FEW + 2)
        found = [raw[path] async for raw in cursor if path in raw]
        return found if len(found) <= FEW else None

    # --- joins --------------------------------------------------------------------------------------------------

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
        if others:
            # The stages' keys beside the ranges of _id: a sharded cluster finds the shards by them.
            where = all_of([any_of(map(ids.pages_of, others)), {"st": {"$in": others}}])
            async for raw in self._database[pages.COLLECTION].find(where, {"st": 1, **_IN_THE_OPEN}):
                if raw["st"] not in found and pages.may_hold(candidate, raw):
                    found.add(raw["st"])
        return [stage for stage in stages if stage["_id"] in found]

    async def _with_stage(self, runs: list[Raw], stage: Filter, *, by_pages: bool) -> list[Raw]:
        where = all_of([{"r": {"$in": [run["_id"] for run in runs]}}, stage])
        stages = await self._database[STAGES.collection].find(where, {"r": 1, **_IN_THE_OPEN}).to_list(None)
        if by_pages:
            stages = [
                one
                for start in range(0, len(stages), CHUNK)
                for one in await self._with_page(stages[start : start + CHUNK])
            ]
        found = {one["r"] for one in stages}
        return [run for run in runs if run["_id"] in found]

    # --- reading ------------------------------------------------------------------------------------------------

    async def _read(self, where: Filter, keys: Sequence[Key], limit: int) -> list[Row]:
        """The first documents that a filter and the joins let through, in an order that the server makes."""
        if where == FALSE:
            return []
        cursor = self._database[self._form.collection].find(where, {pages.BLOCK: 0}, sort=_sort(keys))
        if not self._joins:
            return await self._decoded(await cursor.limit(limit).batch_size(limit + 1).to_list(None))
        found: list[Raw] = []
        async with cursor.batch_size(CHUNK):
            while len(found) < limit:
                raws = chunk = await cursor.to_list(CHUNK)
                for join in self._joins:
                    raws = await join(raws) if raws else raws
                found += raws
                if len(chunk) < CHUNK:
                    break
        return await self._decoded(found[:limit])

    async def _decoded(self, raws: Sequence[Raw]) -> list[Row]:
        found = await self._codec.decode(self._database, self._form, raws)
        return [Row(one.document, tuple(key.value_of(one.document) for key in self._keys)) for one in found]

    # --- orders that no index has whole -------------------------------------------------------------------------

    async def _ordered(self, where: Filter, keys: Sequence[Key], after: Sequence[Any] | None, limit: int) -> list[Row]:
        """The first documents in the order of some keys, behind the values of a row where these are given."""
        if not keys or limit <= 0 or where == FALSE:
            return []
        first = keys[0]
        if first.is_id:
            return await self._by_id(where, first, after, limit)
        if first.is_word:
            return await self._by_word(where, keys, after, limit)
        if first.is_walked or any(key.is_word for key in keys):
            return await self._by_value(where, keys, after, limit)
        beyond = TRUE if after is None else later(keys, after)
        return await self._read(all_of([where, beyond]), keys, limit)

    async def _by_id(self, where: Filter, key: Key, after: Sequence[Any] | None, limit: int) -> list[Row]:
        """By the document's own id: those that are texts, and those that are bytes, are two ranges of keys."""
        rows: list[Row] = []
        for kind in (1, 0) if key.descending else (0, 1):
            of_kind = self._keys_of_project(kind)
            if after is not None:
                start = ids.key(self._known.project, after[0])
                if isinstance(start, bytes) is bool(kind):
                    of_kind = all_of([of_kind, {"_id": {"$lt" if key.descending else "$gt": start}}])
                elif isinstance(start, bytes) is not key.descending:
                    continue
            rows += await self._read(all_of([where, of_kind]), [key], limit - len(rows)) if len(rows) < limit else []
        return rows

    async def _by_word(self, where: Filter, keys: Sequence[Key], after: Sequence[Any] | None, limit: int) -> list[Row]:
        """By texts that are kept as numbers: the documents of one text after the other."""
        key, rest = keys[0], keys[1:]
        assert key.place is not None
        groups: list[tuple[str | None, Filter]] = [(None, self._compiler.absent(key.place))]
        groups += [(text, {key.path: number}) for text, number in self._known.in_order(key.place)]
        if key.descending:
            groups.reverse()
        rows: list[Row] = []
        for text, of_text in groups:
            if len(rows) >= limit:
                break
            at = None
            if after is not None and text != after[0]:
                is_before = _rank(text) > _rank(after[0]) if key.descending else _rank(text) < _rank(after[0])
                if is_before:
                    continue
            elif after is not None:
                at = after[1:]
            rows += await self._ordered(all_of([where, of_text]), rest, at, limit - len(rows))
        return rows

    async def _by_value(self, where: Filter, keys: Sequence[Key], after: Sequence[Any] | None, limit: int) -> list[Row]:
        """By a value whose index does not have what shares a value in the order of the other keys.

        The documents come by value alone; those of the last value, which may be cut off, are found once more in their
        order. Documents without a value are a group of their own.
        """
        first, rest = keys[0], keys[1:]
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
                group = all_of([where, first.has_none()])
                rows += await self._ordered(group, rest, after[1:] if at_absent and after is not None else None, wanted)
            elif not (at_absent and first.descending):
                rows += await self._with_value(where, keys, wanted, after if at_value else None)
        return rows

    async def _with_value(
        self, where: Filter, keys: Sequence[Key], limit: int, after: Sequence[Any] | None
    ) -> list[Row]:
        first, rest = keys[0], keys[1:]
        rows: list[Row] = []
        beyond = first.has_value()
        if after is not None:
            rows += await self._ordered(all_of([where, first.same(after[0])]), rest, after[1:], limit)
            beyond = first.beyond(after[0])
        wanted = limit - len(rows)
        if wanted <= 0:
            return rows
        # One more than is wanted shows whether the last value is cut off.
        found = await self._read(all_of([where, beyond]), [first], wanted + 1)
        if len(found) <= wanted:
            return rows + _in_order(found, keys, self._keys)
        place = self._keys.index(first)
        last = found[wanted - 1].sort_values[place]
        if found[wanted].sort_values[place] != last or not rest:
            return rows + _in_order(found[:wanted], keys, self._keys)
        whole = [row for row in found if row.sort_values[place] != last]
        cut = await self._ordered(all_of([where, first.same(last)]), rest, None, wanted - len(whole))
        # A document may have changed between the two.
        known = {row.document["id"] for row in rows + whole}
        return rows + _in_order(whole, keys, self._keys) + [row for row in cut if row.document["id"] not in known]


def _sort(keys: Sequence[Key]) -> Sort:
    return [(key.path, -1 if key.descending else 1) for key in keys]


def _in_order(rows: list[Row], keys: Sequence[Key], all_keys: Sequence[Key]) -> list[Row]:
    """Rows in the order of some of a scan's keys."""
    for key in reversed(keys):
        rows.sort(key=_value_at(all_keys.index(key), key), reverse=key.descending)
    return rows


def _value_at(place: int, key: Key) -> Callable[[Row], Any]:
    if key.place is not None and key.place.storage in ("own_id", "key", "id"):
        return lambda row: _id_rank(row.sort_values[place])
    return lambda row: _rank(row.sort_values[place])


def _rank(value: Any) -> tuple[bool, Any]:
    return value is not None, value


def _id_rank(value: str | None) -> tuple[int, Any]:
    """The order of ids as they are stored: texts before bytes."""
    stored = None if value is None else ids.id_value(value)
    return 0 if stored is None else 1 if isinstance(stored, str) else 2, stored or ""
