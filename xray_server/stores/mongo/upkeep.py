"""Retention: what the database takes, what is old, and how that is removed.

The server fills the space of removed documents again by itself, at once or later (``footprint`` beside this). Giving it
back to the file system takes ``compact``, which is left to who runs the server: it competes with everything else that
the server does.
"""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from bson.datetime_ms import DatetimeMS
from pymongo.asynchronous.database import AsyncDatabase

from xray.ids import id_time_ms, now_ms
from xray_server.rollups import HOUR_MS
from xray_server.stores.base import Removed, Usage
from xray_server.stores.mongo import buckets, ids, pages
from xray_server.stores.mongo.filters import Filter, any_of
from xray_server.stores.mongo.footprint import Footprint
from xray_server.stores.mongo.forms import Raw
from xray_server.stores.mongo.layout import LISTED
from xray_server.stores.mongo.words import PROJECT, Words

AT_ONCE = 200
"""Runs, or stages, that are removed at once."""

_COLLECTIONS = ("runs", "stages", "pages")
_LENGTH = {"$bsonSize": "$$ROOT"}


async def projects(database: AsyncDatabase[Raw], words: Words) -> list[str]:
    """What ``Store.projects`` returns: a step in an index for each project, not for each document."""
    found: set[int] = set()
    for name in _COLLECTIONS:
        for kind in (0, 1):  # keys that are texts, and those that are bytes
            # A range, which the index serves on every server; of a type alone some read every document.
            where: Filter = {"_id": {"$gte": b"" if kind else ""}}
            while (first := await database[name].find_one(where, {"_id": 1}, sort=[("_id", 1)])) is not None:
                number = ids.project_of(first["_id"])
                found.add(number)
                where = {"_id": {"$gt": ids.last_key(number, is_text=not kind)}}
    known = await words.words(database, found, PROJECT)
    return sorted(str(word.text) for word in known.values())


async def usage(database: AsyncDatabase[Raw], footprint: Footprint) -> Usage:
    """What ``Store.usage`` returns."""
    takes, there = await footprint.look(database)
    stages = there.counts["stages"]
    return Usage(
        takes.in_use,
        there.counts["runs"],
        stages,
        there.counts["pages"] + round(stages * there.inside),
        held_bytes=takes.held,
        lately_bytes=takes.lately,
    )


# --- candidate pages --------------------------------------------------------------------------------------------


async def _older_pages(
    database: AsyncDatabase[Raw], words: Words, project: int, before: int | None
) -> tuple[Filter, Filter]:
    """The pages of older runs: those in their own collection, and those in stages."""
    # Not "less than": pages without a start are as old as can be.
    older: Filter = {} if before is None else {pages.START: {"$not": {"$gte": DatetimeMS(before)}}}
    itself = await words.itself(database, project)
    return {pages.PROJECT: project, **older}, {**pages.HAS_PAGE, LISTED: itself, **older}


async def removable_candidates(database: AsyncDatabase[Raw], words: Words, project: int, before: int | None) -> Removed:
    """What :func:`remove_candidates` would remove without a limit."""
    return await _count_pages(database, *await _older_pages(database, words, project, before))


async def remove_candidates(
    database: AsyncDatabase[Raw], words: Words, project: int, before: int | None, limit: int, footprint: Footprint
) -> Removed:
    """What ``Store.remove_candidates`` does."""
    wanted = {pages.COUNT: 1, pages.OVER: 1, pages.START: 1, "st": 1, "size": {"$binarySize": f"${pages.BLOCK}"}}
    found: list[Raw] = []
    where = await _older_pages(database, words, project, before)
    for name, older in zip(("pages", "stages"), where, strict=True):
        cursor = database[name].find(older, wanted, sort=[(pages.START, 1)], limit=limit)
        found += await cursor.to_list(None)
    found.sort(key=_start_of)
    found = found[:limit]
    stages = {page.get("st", page["_id"]) for page in found}
    # First the stages say so, then the pages go: nobody finds a stage without pages that does not say why. The page in
    # a stage's document goes with the same step.
    removal = {"$max": {"gone": DatetimeMS(now_ms())}, "$inc": {"v": 1}}
    inside = [page["_id"] for page in found if "st" not in page]
    only_outside = sorted(stages - set(inside), key=repr)
    if only_outside:
        await database["stages"].update_many({"_id": {"$in": only_outside}}, removal)
    if inside:
        await database["stages"].update_many(
            {"_id": {"$in": inside}, **pages.HAS_PAGE}, {**removal, "$unset": dict.fromkeys(pages.INLINE, "")}
        )
    await database["pages"].delete_many({"_id": {"$in": [page["_id"] for page in found if "st" in page]}})
    footprint.removed(sum(int(page["size"]) for page in found), sum("st" in page for page in found))
    return Removed(
        stages=len(stages),
        pages=len(found),
        candidates=sum(pages.count_of(page) for page in found),
        up_to=max((int(page[pages.START]) for page in found if pages.START in page), default=None),
    )


def _start_of(page: Raw) -> tuple[bool, int]:
    start = page.get(pages.START)
    return start is not None, 0 if start is None else int(start)


async def _count_pages(database: AsyncDatabase[Raw], outside: Filter, inside: Filter) -> Removed:
    """What pages come to: those in their own collection, and those in stages."""
    stages: set[ids.Key] = set()
    total = Removed()
    for name, filter_ in (("pages", outside), ("stages", inside)):
        stage = "$st" if name == "pages" else "$_id"
        sums = {"pages": {"$sum": 1}, "candidates": {"$sum": pages.COUNTED}, "up_to": {"$max": f"${pages.START}"}}
        steps: list[Raw] = [{"$match": filter_}, {"$group": {"_id": stage, **sums}}]
        async with await database[name].aggregate(steps) as cursor:
            async for found in cursor:
                stages.add(found["_id"])
                up_to = found.get("up_to")
                total += Removed(
                    pages=int(found["pages"]),
                    candidates=int(found["candidates"]),
                    up_to=None if up_to is None else int(up_to),
                )
    return replace(total, stages=len(stages))


# --- runs -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Aged:
    """A run.

    Args:
        key: Its key.
        age: Its start, else the time of its id; None where nobody can tell.
        start: Its start.
    """

    key: ids.Key
    age: int | None
    start: int | None


@dataclass(frozen=True, slots=True)
class _Belongings:
    """What belongs to some runs.

    Args:
        runs: The runs.
        stages: The keys of their stages.
        length: What these come to, in bytes.
        pages: Their pages in a collection of their own, also those of stages that never came.
    """

    runs: Sequence[_Aged]
    stages: Sequence[ids.Key]
    length: int
    pages: Filter

    async def removed(self, database: AsyncDatabase[Raw]) -> Removed:
        """What their removal comes to."""
        inside: Filter = {"_id": {"$in": list(self.stages)}, **pages.HAS_PAGE}
        found = await _count_pages(database, self.pages, inside)
        up_to = max((run.age for run in self.runs if run.age is not None), default=None)
        return Removed(len(self.runs), len(self.stages), found.pages, found.candidates, up_to)


async def removable_runs(database: AsyncDatabase[Raw], project: int, before: int | None) -> Removed:
    """What :func:`remove_runs` would remove without a limit."""
    total = Removed()
    async for some in _in_lots(_oldest(database, project, before), AT_ONCE):
        found = await _belongings(database, project, some)
        total += await found.removed(database)
    return total


async def remove_runs(
    database: AsyncDatabase[Raw], name: str, project: int, before: int | None, limit: int, footprint: Footprint
) -> Removed:
    """What ``Store.remove_runs`` does."""
    total = Removed()
    oldest = [run async for run in _oldest(database, project, before, limit)]
    for start in range(0, len(oldest), AT_ONCE):
        some = oldest[start : start + AT_ONCE]
        found = await _belongings(database, project, some)
        removed = await found.removed(database)
        outside, length = await _count_and_length(database, found.pages)
        # What belongs to a run goes first: were this cut short, the run is there to be removed again.
        await database["pages"].delete_many(found.pages)
        await database["stages"].delete_many({"_id": {"$in": found.stages}})
        await database["runs"].delete_many({"_id": {"$in": [run.key for run in some]}})
        footprint.removed(found.length + length, len(some) + len(found.stages) + outside)
        total += removed
    if total.runs:
        left = [run async for run in _oldest(database, project, None, 1, aged_only=True)]
        hour = None if not left or left[0].age is None else left[0].age // HOUR_MS * HOUR_MS
        await buckets.remove_older(database, name, hour)
    return total


async def _belongings(database: AsyncDatabase[Raw], project: int, runs: Sequence[_Aged]) -> _Belongings:
    keys = [run.key for run in runs]
    cursor = database["stages"].find({"r": {"$in": keys}}, {"_id": 1, "length": _LENGTH})
    lengths = {raw["_id"]: int(raw["length"]) async for raw in cursor}
    stages = list(lengths)
    # By the index over starts: a page has the start of its run, or none.
    starts = [None, *(DatetimeMS(start) for start in {run.start for run in runs if run.start is not None})]
    of_runs: Filter = {pages.PROJECT: project, pages.START: {"$in": starts}, "r": {"$in": keys}}
    return _Belongings(runs, stages, sum(lengths.values()), any_of([of_runs, {"st": {"$in": stages}}]))


async def _count_and_length(database: AsyncDatabase[Raw], where: Filter) -> tuple[int, int]:
    """How many pages in their own collection there are, and what they come to, in bytes."""
    steps: list[Raw] = [{"$match": where}, {"$group": {"_id": None, "n": {"$sum": 1}, "length": {"$sum": _LENGTH}}}]
    async with await database["pages"].aggregate(steps) as cursor:
        async for found in cursor:
            return int(found["n"]), int(found["length"])
    return 0, 0


async def _oldest(
    database: AsyncDatabase[Raw], project: int, before: int | None, limit: int | None = None, *, aged_only: bool = False
) -> AsyncIterator[_Aged]:
    """The oldest runs; those whose age nobody can tell come first, and only where every age will do."""
    found: list[_Aged] = []
    unknown: list[_Aged] = []
    async for raw in database["runs"].find({"p": project, "s": None}, {"_id": 1}, sort=[("_id", 1)]):
        age = id_time_ms(ids.id_of(raw["_id"]))
        if age is None:
            if before is None and not aged_only:
                unknown.append(_Aged(raw["_id"], None, None))
        elif before is None or age < before:
            found.append(_Aged(raw["_id"], age, None))
        if limit is not None and len(unknown) >= limit:
            break
    started: Filter = {"$ne": None} if before is None else {"$lt": DatetimeMS(before)}
    by_start = database["runs"].find({"p": project, "s": started}, {"s": 1}, sort=[("s", 1)])
    if limit is not None:
        by_start = by_start.limit(limit)
    given = [_Aged(raw["_id"], int(raw["s"]), int(raw["s"])) async for raw in by_start]
    aged = heapq.merge(sorted(found, key=_age), sorted(given, key=_age), key=_age)
    for number, run in enumerate([*unknown, *aged]):
        if number == limit:
            return
        yield run


def _age(run: _Aged) -> tuple[int, str]:
    return run.age or 0, ids.id_of(run.key)


async def _in_lots(runs: AsyncIterator[_Aged], size: int) -> AsyncIterator[list[_Aged]]:
    lot: list[_Aged] = []
    async for run in runs:
        lot.append(run)
        if len(lot) == size:
            yield lot
            lot = []
    if lot:
        yield lot
