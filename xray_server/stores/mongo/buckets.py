"""Rollups and dirty marks.

A bucket's mark and its rollup lie in one document, so that each step below is atomic without a transaction.

A writer marks the buckets of its stages, writes the stages, and marks again. While a write is under way its bucket is
dirty and stays so: ``pending`` counts such writes, and a rollup that is kept makes a bucket clean only where there is
none. The second mark makes the number grow again, because a rollup may have been computed after the first mark and
before the stage came. A writer that is killed in between never makes its second mark; the bucket stays dirty until
no such write can still be under way (``WRITE_ENDS_WITHIN_MS``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pymongo import UpdateOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError

from xray_server.half_days import HALF_DAY_MS, half_day_of
from xray_server.stores.base import Bucket, HalfDays, Rollup
from xray_server.stores.encoding import pack, unpacked
from xray_server.stores.mongo.forms import Raw
from xray_server.stores.mongo.races import MAX_ATTEMPTS, contended, overtaken, pause
from xray_server.stores.unread import UnreadMetrics

COLLECTION = "buckets"
HALF_DAYS = "half_days"
"""Half days have marks and rollups as hours have; no write is ever pending on them."""

WRITE_ENDS_WITHIN_MS = 600_000
"""How long after its first mark a write may take to reach its stages; far beyond the deadline of an operation."""

KEPT_PER_WRITE = 500
"""Rollups that are sent at once."""

KEPT_PER_READ = 5000
"""Rollups that the server sends at once; each is some hundred bytes."""


async def begin(database: AsyncDatabase[Raw], project: str, buckets: Iterable[Bucket]) -> None:
    """Mark buckets before a write."""
    mark = {"$inc": {"mark": 1, "pending": 1}, "$set": {"dirty": True}, "$currentDate": {"pending_at": True}}
    await _mark(database, project, buckets, mark)


async def end(database: AsyncDatabase[Raw], project: str, buckets: Iterable[Bucket]) -> None:
    """Mark buckets after a write."""
    await _mark(database, project, buckets, {"$inc": {"mark": 1, "pending": -1}, "$set": {"dirty": True}})


async def _mark(
    database: AsyncDatabase[Raw], project: str, buckets: Iterable[Bucket], update: Raw, name: str = COLLECTION
) -> None:
    keys = sorted((_key(project, bucket) for bucket in buckets), key=lambda key: tuple(map(str, key.values())))
    for attempt in range(MAX_ATTEMPTS):
        if not keys:
            return
        try:
            await database[name].bulk_write(
                [UpdateOne({"_id": key}, update, upsert=True) for key in keys], ordered=False
            )
            return
        except BulkWriteError as error:
            # Two writers that mark a new bucket at once: the one that came second tries again.
            keys = [keys[index] for index in overtaken(error)]
        await pause(attempt)
    raise contended(name)


async def dirty(
    collection: AsyncCollection[Raw], project: str, limit: int, label: str | None, since: int | None, until: int | None
) -> list[tuple[Bucket, int]]:
    """What ``Store.dirty_buckets`` returns."""
    where: Raw = {"_id.p": project, "dirty": True, **_hours(since, until)}
    if label is not None:
        where["_id.l"] = label
    found = collection.find(where, {"mark": 1}, sort=[("_id.h", 1)], limit=limit, batch_size=limit + 1)
    return [(_bucket(raw["_id"]), int(raw["mark"])) async for raw in found]


async def keep(database: AsyncDatabase[Raw], project: str, rollups: Sequence[tuple[Rollup, int]]) -> None:
    """What ``Store.keep_rollups`` does."""
    # First the half days: a half day that is not marked must never lack an hour that is not.
    mark = {"$inc": {"mark": 1}, "$set": {"dirty": True, "pending": 0}}
    await _mark(database, project, {half_day_of(rollup.bucket) for rollup, _ in rollups}, mark, HALF_DAYS)
    await _keep(database[COLLECTION], project, rollups)


async def keep_half_days(database: AsyncDatabase[Raw], project: str, rollups: Sequence[tuple[Rollup, int]]) -> None:
    """What ``Store.keep_half_days`` does."""
    await _keep(database[HALF_DAYS], project, rollups)


async def _keep(collection: AsyncCollection[Raw], project: str, rollups: Sequence[tuple[Rollup, int]]) -> None:
    for start in range(0, len(rollups), KEPT_PER_WRITE):
        some = rollups[start : start + KEPT_PER_WRITE]
        clean, better = await asyncio.to_thread(_updates, project, some)
        result = await collection.bulk_write(clean, ordered=False)
        if result.matched_count < len(some):
            await collection.bulk_write(better, ordered=False)


def _updates(project: str, rollups: Sequence[tuple[Rollup, int]]) -> tuple[list[UpdateOne], list[UpdateOne]]:
    """What makes buckets clean, and what is to be done after that with those which it did not."""
    clean, better = [], []
    for rollup, mark in rollups:
        key = _key(project, rollup.bucket)
        values = {
            "stage_count": rollup.stage_count,
            "failure_count": rollup.failure_count,
            "metrics": pack(dict(rollup.metrics)),
            "kept": mark,
        }
        nothing_under_way = {
            "$or": [
                {"pending": {"$lte": 0}},
                {"$expr": {"$lt": ["$pending_at", {"$subtract": ["$$NOW", WRITE_ENDS_WITHIN_MS]}]}},
            ]
        }
        # Clean, where nothing was written since the mark nor is being written.
        clean.append(
            UpdateOne(
                {"_id": key, "dirty": True, "mark": mark, **nothing_under_way},
                {"$set": {**values, "dirty": False, "pending": 0}},
            )
        )
        # Else better than what was kept before, unless that is later; and the bucket stays dirty. A bucket that
        # is clean is left alone: somebody has kept a rollup of the same or a later state.
        better.append(
            UpdateOne({"_id": key, "dirty": True, "$or": [{"kept": None}, {"kept": {"$lte": mark}}]}, {"$set": values})
        )
    return clean, better


async def kept(
    collection: AsyncCollection[Raw], project: str, label: str | None, name: str | None, since: int, until: int
) -> list[Rollup]:
    """What ``Store.rollups`` returns."""
    where: Raw = {"_id.p": project, **_hours(since, until), "stage_count": {"$gt": 0}}
    where |= {path: value for path, value in (("_id.l", label), ("_id.n", name)) if value is not None}
    wanted = {"stage_count": 1, "failure_count": 1, "metrics": 1}
    found = await collection.find(where, wanted, sort=[("_id", 1)], batch_size=KEPT_PER_READ).to_list()
    return [
        Rollup(
            _bucket(raw["_id"]),
            int(raw["stage_count"]),
            int(raw["failure_count"]),
            UnreadMetrics(unpacked(raw["metrics"])),
        )
        for raw in found
    ]


async def half_days(
    database: AsyncDatabase[Raw], project: str, label: str | None, name: str | None, since: int, until: int
) -> HalfDays:
    """What ``Store.half_days`` returns."""
    # The marks first: what is brought up to date in between is then taken for out of date, never the reverse.
    marked = await dirty(database[HALF_DAYS], project, 0, label, since, until)
    return HalfDays(
        await kept(database[HALF_DAYS], project, label, name, since, until),
        {bucket for bucket, _ in marked if name is None or bucket.name == name},
    )


async def mark_all_half_days(database: AsyncDatabase[Raw]) -> None:
    """Mark the half days of all hours that are kept, once in a database, for what was kept before there were any."""
    form = database["form"]
    if await form.find_one({"_id": HALF_DAYS}) is not None:
        return
    found: dict[str, set[Bucket]] = {}
    async for raw in database[COLLECTION].find({"stage_count": {"$gt": 0}}, {"_id": 1}):
        found.setdefault(raw["_id"]["p"], set()).add(half_day_of(_bucket(raw["_id"])))
    for project, buckets in found.items():
        await _mark(database, project, buckets, {"$inc": {"mark": 1}, "$set": {"dirty": True, "pending": 0}}, HALF_DAYS)
    await form.update_one({"_id": HALF_DAYS}, {"$set": {"version": 1}}, upsert=True)


async def remove_older(database: AsyncDatabase[Raw], project: str, hour: int | None) -> None:
    """Remove what is kept and marked of hours before this one; of all hours where it is None."""
    await database[COLLECTION].delete_many({"_id.p": project, **_hours(None, hour)})
    half_days = database[HALF_DAYS]
    await half_days.delete_many({"_id.p": project, **_hours(None, None if hour is None else hour - HALF_DAY_MS + 1)})
    if hour is not None:
        # The half day that lost only some of its hours.
        update = {"$inc": {"mark": 1}, "$set": {"dirty": True}}
        await half_days.update_many({"_id.p": project, **_hours(None, hour)}, update)


def _hours(since: int | None, until: int | None) -> Raw:
    bounds = {op: hour for op, hour in (("$gte", since), ("$lt", until)) if hour is not None}
    return {"_id.h": bounds} if bounds else {}


def _key(project: str, bucket: Bucket) -> Raw:
    return {
        "p": project,
        "h": bucket.hour,
        "l": bucket.label,
        "n": bucket.name,
        "t": bucket.type,
        "v": bucket.version,
    }


def _bucket(key: Mapping[str, Any]) -> Bucket:
    return Bucket(key["l"], key["n"], key["t"], key["v"], int(key["h"]))
