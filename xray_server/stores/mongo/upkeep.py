"""Retention: what the database takes, what is old, and how that is removed.

MongoDB fills the space of removed documents again by itself. Giving it back to the file system takes ``compact``,
which is left to who runs the server: it competes with everything else that the server does.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence

from bson.datetime_ms import DatetimeMS
from bson.max_key import MaxKey
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from xray.ids import id_time_ms, now_ms
from xray_server.rollups import HOUR_MS
from xray_server.stores.base import Removed, Usage
from xray_server.stores.mongo import buckets, forms
from xray_server.stores.mongo.filters import Filter, any_of
from xray_server.stores.mongo.forms import Raw, pages_of

AT_ONCE = 200
"""Runs, or stages, that are removed at once."""

EXACT_UP_TO = 10_000
"""Documents that are counted; of larger collections the server's estimate is taken."""

SETTLED_FROM_BYTES = 16 * 1024 * 1024
"""Size of a database's files from which they are a measure of what is in them."""

COUNTED_AFTER_S = 90
"""After this the server has made a checkpoint, which it does every minute, and counts what is free."""

_OTHER_KEYS = {"runs": "i", "stages": "i", "pages": "s"}


async def projects(database: AsyncDatabase[Raw]) -> list[str]:
    """What ``Store.projects`` returns: a step in an index for each project, not for each document."""
    found: set[str] = set()
    for name, second in _OTHER_KEYS.items():
        where: Filter = {}
        while (first := await database[name].find_one(where, {"_id": 1}, sort=[("_id", 1)])) is not None:
            project = first["_id"]["p"]
            found.add(project)
            where = {"_id": {"$gt": {"p": project, second: MaxKey()}}}
    return sorted(found)


class Freed:
    """The bytes that this process has removed lately.

    The server counts them as free only after its next checkpoint. Whoever removes until little enough is left would
    go on removing all the while.
    """

    def __init__(self) -> None:
        self._removed: deque[tuple[float, int]] = deque()

    def add(self, size_bytes: int) -> None:
        """Note a removal."""
        self._removed.append((time.monotonic(), size_bytes))

    def recently(self) -> int:
        """The bytes that the server may not count as free yet."""
        while self._removed and self._removed[0][0] < time.monotonic() - COUNTED_AFTER_S:
            self._removed.popleft()
        return sum(size for _, size in self._removed)


async def usage(database: AsyncDatabase[Raw], freed: Freed) -> Usage:
    """What ``Store.usage`` returns."""
    stats = await database.command({"dbStats": 1, "freeStorage": 1})
    data = stats["storageSize"] - stats.get("freeStorageSize", 0)
    if data < SETTLED_FROM_BYTES:
        # What is new is in memory and in the journal until the next checkpoint, and in no collection's file.
        data = max(data, stats["dataSize"])
    indexes = stats["indexSize"] - stats.get("indexFreeStorageSize", 0)
    runs, stages, pages = [await _count(database[name]) for name in ("runs", "stages", "pages")]
    return Usage(max(0, int(data + indexes) - freed.recently()), runs, stages, pages)


async def _count(collection: AsyncCollection[Raw]) -> int:
    counted = await collection.count_documents({}, limit=EXACT_UP_TO)
    return counted if counted < EXACT_UP_TO else int(await collection.estimated_document_count())


# --- candidate pages --------------------------------------------------------------------------------------------


def _older_pages(project: str, before: int | None) -> Filter:
    where: Filter = {"_id.p": project}
    # Not "less than": pages without a start are as old as can be.
    return where if before is None else {**where, "started_at": {"$not": {"$gte": DatetimeMS(before)}}}


async def removable_candidates(database: AsyncDatabase[Raw], project: str, before: int | None) -> Removed:
    """What :func:`remove_candidates` would remove without a limit."""
    return await _count_pages(database, _older_pages(project, before))


async def remove_candidates(
    database: AsyncDatabase[Raw], project: str, before: int | None, limit: int, freed: Freed
) -> Removed:
    """What ``Store.remove_candidates`` does."""
    wanted = {"candidates": 1, "started_at": 1, "size": {"$bsonSize": "$$ROOT"}}
    cursor = database["pages"].find(_older_pages(project, before), wanted, sort=[("started_at", 1)], limit=limit)
    pages = await cursor.to_list(None)
    stage_ids = {page["_id"]["s"] for page in pages}
    # First the stages say so, then the pages go: nobody finds a stage without pages that does not say why.
    await database["stages"].update_many(
        {"_id": {"$in": [forms.key(project, stage_id) for stage_id in sorted(stage_ids)]}},
        {"$max": {"candidates_removed_at": DatetimeMS(now_ms())}, "$inc": {"rev": 1}},
    )
    await database["pages"].delete_many({"_id": {"$in": [page["_id"] for page in pages]}})
    freed.add(sum(int(page["size"]) for page in pages))
    return Removed(
        stages=len(stage_ids),
        pages=len(pages),
        candidates=sum(int(page["candidates"]) for page in pages),
        up_to=max((int(page["started_at"]) for page in pages if "started_at" in page), default=None),
    )


async def _count_pages(database: AsyncDatabase[Raw], where: Filter) -> Removed:
    sums = {"candidates": {"$sum": "$candidates"}, "up_to": {"$max": "$started_at"}}
    by_stage = {"_id": "$_id.s", "pages": {"$sum": 1}, **sums, "started_at": {"$max": "$started_at"}}
    total = {"_id": None, "stages": {"$sum": 1}, "pages": {"$sum": "$pages"}, **sums}
    steps: list[Raw] = [{"$match": where}, {"$group": by_stage}, {"$group": total}]
    async with await database["pages"].aggregate(steps) as cursor:
        async for found in cursor:
            up_to = found.get("up_to")
            return Removed(
                stages=int(found["stages"]),
                pages=int(found["pages"]),
                candidates=int(found["candidates"]),
                up_to=None if up_to is None else int(up_to),
            )
    return Removed()


# --- runs -------------------------------------------------------------------------------------------------------

_Aged = tuple[int | None, str, int | None]
"""A run's age (its start, else the time of its id), its id, and its start."""


async def removable_runs(database: AsyncDatabase[Raw], project: str, before: int | None) -> Removed:
    """What :func:`remove_runs` would remove without a limit."""
    total = Removed()
    async for some in _in_lots(_oldest(database, project, before), AT_ONCE):
        found = await _belongings(database, project, some)
        pages = await _count_pages(database, found.pages)
        total += Removed(len(some), len(found.stages), pages.pages, pages.candidates, _latest(some))
    return total


async def remove_runs(database: AsyncDatabase[Raw], project: str, before: int | None, limit: int) -> Removed:
    """What ``Store.remove_runs`` does."""
    total = Removed()
    oldest = [run async for run in _oldest(database, project, before, limit)]
    for start in range(0, len(oldest), AT_ONCE):
        some = oldest[start : start + AT_ONCE]
        found = await _belongings(database, project, some)
        pages = await _count_pages(database, found.pages)
        # What belongs to a run goes first: were this cut short, the run is there to be removed again.
        await database["pages"].delete_many(found.pages)
        await database["stages"].delete_many({"_id": {"$in": [forms.key(project, i) for i in found.stages]}})
        await database["runs"].delete_many({"_id": {"$in": [forms.key(project, run[1]) for run in some]}})
        total += Removed(len(some), len(found.stages), pages.pages, pages.candidates, _latest(some))
    if total.runs:
        left = [run async for run in _oldest(database, project, None, 1, aged_only=True)]
        hour = None if not left or left[0][0] is None else left[0][0] // HOUR_MS * HOUR_MS
        await buckets.remove_older(database[buckets.COLLECTION], project, hour)
    return total


class _Belongings:
    """What belongs to some runs.

    Args:
        stages: The ids of their stages.
        pages: Their pages, also those of stages that never came.
    """

    def __init__(self, stages: Sequence[str], pages: Filter) -> None:
        self.stages = stages
        self.pages = pages


async def _belongings(database: AsyncDatabase[Raw], project: str, runs: Sequence[_Aged]) -> _Belongings:
    ids = [run_id for _, run_id, _ in runs]
    cursor = database["stages"].find({"_id.p": project, "run_id": {"$in": ids}}, {"_id": 1})
    stages = [raw["_id"]["i"] async for raw in cursor]
    # By the index over starts: a page has the start of its run, or none.
    starts = [None, *(DatetimeMS(start) for start in {start for *_, start in runs if start is not None})]
    of_runs: Filter = {"_id.p": project, "started_at": {"$in": starts}, "run_id": {"$in": ids}}
    return _Belongings(stages, any_of([of_runs, *(pages_of(project, stage_id) for stage_id in stages)]))


async def _oldest(
    database: AsyncDatabase[Raw], project: str, before: int | None, limit: int | None = None, *, aged_only: bool = False
) -> AsyncIterator[_Aged]:
    """The oldest runs; those whose age nobody can tell come first, and only where every age will do."""
    found: list[_Aged] = []
    without = database["runs"].find({"_id.p": project, "started_at": None}, {"_id": 1}, sort=[("_id.i", 1)])
    unknown: list[_Aged] = []
    async for raw in without:
        run_id = raw["_id"]["i"]
        age = id_time_ms(run_id)
        if age is None:
            if before is None and not aged_only:
                unknown.append((None, run_id, None))
        elif before is None or age < before:
            found.append((age, run_id, None))
        if limit is not None and len(unknown) >= limit:
            break
    started: Filter = {"$ne": None} if before is None else {"$lt": DatetimeMS(before)}
    by_start = database["runs"].find(
        {"_id.p": project, "started_at": started}, {"started_at": 1}, sort=[("started_at", 1), ("_id.i", 1)]
    )
    if limit is not None:
        by_start = by_start.limit(limit)
    given = [(int(raw["started_at"]), raw["_id"]["i"], int(raw["started_at"])) async for raw in by_start]
    for number, run in enumerate([*unknown, *heapq.merge(sorted(found), given, key=lambda run: (run[0] or 0, run[1]))]):
        if number == limit:
            return
        yield run


async def _in_lots(runs: AsyncIterator[_Aged], size: int) -> AsyncIterator[list[_Aged]]:
    lot: list[_Aged] = []
    async for run in runs:
        lot.append(run)
        if len(lot) == size:
            yield lot
            lot = []
    if lot:
        yield lot


def _latest(runs: Sequence[_Aged]) -> int | None:
    return max((age for age, *_ in runs if age is not None), default=None)
