"""The finds of one scan: what they ask, and what comes of what they read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Self

from pymongo.asynchronous.database import AsyncDatabase

from xray_server.query.ast import Scan
from xray_server.query.narrowing import concerns_only_pipeline
from xray_server.stores.base import Row
from xray_server.stores.mongo import ids, pages
from xray_server.stores.mongo.codec import Codec
from xray_server.stores.mongo.compiler import Compiler, about_the_copy
from xray_server.stores.mongo.filters import FALSE, Filter, all_of, says_the_project
from xray_server.stores.mongo.forms import RUNS, STAGES, Raw
from xray_server.stores.mongo.joins import CHUNK, NEEDED, Joins
from xray_server.stores.mongo.known import Known, Wanted
from xray_server.stores.mongo.layout import LISTED
from xray_server.stores.mongo.order import Key, sort_keys
from xray_server.stores.mongo.spans import Spans

WHOLE_AT_ONCE = 32
"""Documents that passed all joins and are worth a find for the rest of them."""

DECODED_AT_ONCE = 250
"""Documents that are decoded before others have their turn."""

Sort = list[tuple[str, int]]


class Finder:
    """Reads documents for one scan; made by :meth:`of`.

    Args:
        codec: Decodes.
        database: The database.
        scan: The scan.
        known: The numbers that the scan needs.
        spans: What is remembered of scans by start; None reads all of time at once.

    Raises:
        StoreError: The store cannot sort by one of the keys.
    """

    def __init__(
        self, codec: Codec, database: AsyncDatabase[Raw], scan: Scan, known: Known, spans: Spans | None = None
    ) -> None:
        self._codec = codec
        self._database = database
        self._scan = scan
        self._known = known
        self._spans = spans
        self._form = STAGES if scan.of == "stages" else RUNS
        self._compiler = Compiler(known)
        self._keys = sort_keys(scan, known)
        self._joins = Joins(database, scan, known)
        self._ids: set[Any] = set()
        self.wanted: Mapping[str, int] = {pages.BLOCK: 0}
        """What is read of a document."""
        self.found: list[Row] = []
        """What was found so far: in order, and nothing that comes before the last of them is missing."""

    @classmethod
    async def of(
        cls, codec: Codec, database: AsyncDatabase[Raw], project: str, scan: Scan, spans: Spans | None = None
    ) -> Self:
        """Look up what a scan needs.

        Raises:
            StoreError: The store cannot sort by one of the keys.
        """
        known = await wanted_by(scan).look_up(codec.words, database, project)
        return cls(codec, database, scan, known, spans)

    # --- what to find -------------------------------------------------------------------------------------------

    def _of_collection(self, parts: Sequence[Filter]) -> Filter:
        """All of some filters, for documents of the project only."""
        where = all_of(parts)
        if where == FALSE or says_the_project(where):
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

    # --- reading ------------------------------------------------------------------------------------------------

    @property
    def _room(self) -> int:
        """How many documents are still wanted."""
        return self._scan.limit - len(self.found)

    def _add(self, rows: Sequence[Row]) -> None:
        for row in rows:
            found = row.sort_values[-1] if self._keys[-1].is_id else None
            if found is None or found not in self._ids:  # one that changed between two finds may come twice
                self._ids.add(found)
                self.found.append(row)

    async def _read(self, where: Filter, keys: Sequence[Key], limit: int) -> AsyncIterator[list[Row]]:
        """The first documents that a filter and the joins let through, in an order that the server makes."""
        if where == FALSE or limit <= 0:
            return
        collection = self._database[self._form.collection]
        if not self._joins:
            cursor = collection.find(where, self.wanted, sort=sort_of(keys), limit=limit, batch_size=limit + 1)
            yield await self._made(await cursor.to_list(None))
            return
        # Of what is passed over no more is read than says so.
        async with collection.find(where, NEEDED, sort=sort_of(keys), batch_size=CHUNK) as cursor:
            partners: list[ids.Key] = []
            is_last = False
            while limit > 0 and not is_last:
                chunk = await cursor.to_list(CHUNK)
                is_last = len(chunk) < CHUNK
                partners += [raw["_id"] for raw in await self._joins.joined(chunk)]
                if len(partners) >= min(limit, WHOLE_AT_ONCE) or (is_last and partners):
                    rows = await self._made(await self._whole(partners[:limit]))
                    partners = partners[limit:]
                    limit -= len(rows)
                    yield rows

    async def _whole(self, keys: Sequence[ids.Key]) -> list[Raw]:
        """The documents of some keys, in the order of these."""
        cursor = self._database[self._form.collection].find(
            {"_id": {"$in": list(keys)}}, self.wanted, batch_size=len(keys) + 1
        )
        found = {raw["_id"]: raw async for raw in cursor}
        return [found[key] for key in keys if key in found]

    async def _made(self, raws: Sequence[Raw]) -> list[Row]:
        rows: list[Row] = []
        for start in range(0, len(raws), DECODED_AT_ONCE):
            if start:
                await asyncio.sleep(0)
            found = await self._codec.decode(self._database, self._form, raws[start : start + DECODED_AT_ONCE])
            rows += [Row(one.document, tuple(key.value_of(one.document) for key in self._keys)) for one in found]
        return rows


def wanted_by(scan: Scan) -> Wanted:
    """What has to be looked up for a scan."""
    wanted = Wanted()
    for stage in (scan.stage, *scan.stages):
        wanted.condition(stage, STAGES)
    wanted.condition(scan.pipeline, RUNS)
    wanted.condition(about_the_copy(scan.pipeline), STAGES)
    for key in scan.sort:
        wanted.order(key.reference, STAGES if scan.of == "stages" else RUNS)
    return wanted


def sort_of(keys: Sequence[Key]) -> Sort:
    """The sort of a find by some keys."""
    return [(key.path, -1 if key.descending else 1) for key in keys]
