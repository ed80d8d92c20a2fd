"""Building the index over candidate ids in MongoDB, one process at a time; ``sightings`` says what lies where.

In this order nothing gets lost, wherever a process ends: parts, then the list that names them, then what they take the
place of is removed. The list names what is to be removed too, so that whoever comes next finishes that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from bson import ObjectId
from bson.max_key import MaxKey
from bson.min_key import MinKey
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError, PyMongoError

from xray.exceptions import StoreError
from xray.ids import now_ms
from xray_server.sightings.segments import Built, Segment, build, is_too_much, is_worth_a_segment, merge, to_merge
from xray_server.sightings.tail import unpack_tail
from xray_server.stores.base import Store
from xray_server.stores.mongo.sightings import (
    BLOCK,
    INDEX,
    PART,
    PARTS,
    TAIL,
    Listing,
    Raw,
    listing_of,
    part_key,
    records_where,
)

BUSY_MS = 60_000
"""For how long one process has the building of segments to itself; then another takes it for dead."""

LOOK_EVERY_S = 600.0
"""How often a process looks for segments of which nothing is left."""

SETTLED_AFTER_MS = 3_600_000
"""After this a page whose record is in a segment has been written, or never will be."""


@dataclass(slots=True)
class _Step:
    """What one step of indexing is to do.

    Args:
        records: The records that become a segment.
        merged: The numbers of the segments that become one.
        gone: The numbers of segments of which no page is left.
    """

    records: list[ObjectId] = field(default_factory=list)
    merged: list[int] = field(default_factory=list)
    gone: list[int] = field(default_factory=list)


async def index(store: Store, database: AsyncDatabase[Raw], project: str, *, look_for_gone: bool) -> bool:
    """What ``Store.index_candidates`` does.

    Args:
        store: Says what retention has left.
        database: The database.
        project: The project.
        look_for_gone: Whether to look for segments of which nothing is left.
    """
    listing = await listing_of(database, project)
    if listing.busy_until > now_ms():
        return False
    step = await _plan(store, database, project, listing, look_for_gone=look_for_gone)
    if step is None:
        return False
    segment = ObjectId()
    if not await _begin(database, project, listing, segment):
        return False
    try:
        # What whoever had a turn before may have left.
        await _remove(database, project, [*listing.removed, *([listing.building] if listing.building else [])])
        built = await _built(database, project, listing, step)
        if built is not None:
            await _upload(database, project, segment, built)
        removed = await _finish(database, project, listing, step, segment, built)
    except BaseException:
        await _give_up(database, project, listing, segment)
        raise
    # Where another process took this one for dead, what it built is what is not wanted.
    await _remove(database, project, [segment] if removed is None else removed)
    return True


async def _plan(
    store: Store, database: AsyncDatabase[Raw], project: str, listing: Listing, *, look_for_gone: bool
) -> _Step | None:
    if look_for_gone and (gone := await _gone(store, project, listing)):
        return _Step(gone=gone)
    removed, pages, entries = set(listing.removed), 0, 0
    step = _Step()
    async for raw in database[TAIL].find(records_where(project), {"pages": 1, "entries": 1}, sort=[("_id", 1)]):
        if raw["_id"]["o"] in removed:
            continue
        more = pages + int(raw["pages"]), entries + int(raw["entries"])
        if step.records and is_too_much(*more):
            break
        pages, entries = more
        step.records.append(raw["_id"]["o"])
    if is_worth_a_segment(pages, entries):
        return step
    chosen = to_merge(listing.segments)
    return _Step(merged=chosen) if chosen else None


async def _gone(store: Store, project: str, listing: Listing) -> list[int]:
    """The segment with the oldest pages, where none of its pages is left."""
    settled = now_ms() - SETTLED_AFTER_MS
    old = [
        (segment.last_at or 0, number)
        for number, segment in listing.segments.items()
        if listing.ids[number].generation_time.timestamp() * 1000 < settled
    ]
    if not old:
        return []
    last_at, number = min(old)
    left = await store.remove_candidates(project, before=last_at + 1, limit=1, dry_run=True)
    return [] if left.pages else [number]


async def _begin(database: AsyncDatabase[Raw], project: str, listing: Listing, segment: ObjectId) -> bool:
    """Take the turn to build; whether nobody else was faster."""
    turn = {"busy_until": now_ms() + BUSY_MS, "building": segment, "rev": listing.revision + 1}
    if listing.revision:
        result = await database[INDEX].update_one({"_id": project, "rev": listing.revision}, {"$set": turn})
        return result.matched_count == 1
    try:
        await database[INDEX].insert_one({"_id": project, "segments": [], "removed": [], **turn})
    except DuplicateKeyError:
        return False
    return True


async def _built(database: AsyncDatabase[Raw], project: str, listing: Listing, step: _Step) -> Built | None:
    if step.merged:
        loaded = [
            await _loaded(database, project, listing.ids[number], listing.segments[number]) for number in step.merged
        ]
        return await asyncio.to_thread(merge, loaded)
    if not step.records:
        return None
    keys = [{"p": project, "o": record} for record in step.records]
    records = [raw["data"] async for raw in database[TAIL].find({"_id": {"$in": keys}}, sort=[("_id", 1)])]
    if len(records) < len(keys):
        raise StoreError("A record of the index over candidate ids is gone.", code="contended")
    return await asyncio.to_thread(lambda: build(page for record in records for page in unpack_tail(record)))


async def _loaded(database: AsyncDatabase[Raw], project: str, segment: ObjectId, known: Segment) -> Built:
    data: tuple[list[bytes], list[bytes]] = [], []
    async for raw in database[PARTS].find(_of_segment(project, segment), sort=[("_id", 1)]):
        data[int(raw["_id"]["k"])].append(raw["data"])
    if (len(data[PART]), len(data[BLOCK])) != (known.parts, known.blocks):
        raise StoreError("A part of a segment of the index over candidate ids is gone.", code="contended")
    return Built(known, *data)


def _of_segment(project: str, segment: ObjectId) -> Raw:
    first, last = ({"p": project, "g": segment, "k": end(), "n": end()} for end in (MinKey, MaxKey))
    return {"_id": {"$gte": first, "$lte": last}}


async def _upload(database: AsyncDatabase[Raw], project: str, segment: ObjectId, built: Built) -> None:
    await database[PARTS].insert_many(
        [
            {"_id": part_key(project, segment, kind, number), "data": data}
            for kind, many in ((PART, built.parts), (BLOCK, built.blocks))
            for number, data in enumerate(many)
        ],
        ordered=False,
    )


async def _finish(
    database: AsyncDatabase[Raw], project: str, listing: Listing, step: _Step, segment: ObjectId, built: Built | None
) -> list[ObjectId] | None:
    """Put the new segment into the list in place of what it was made of; what is to be removed now.

    Returns:
        None where this process's turn was over.
    """
    dropped = {*step.merged, *step.gone}
    kept = [_entry(listing.ids[number], one) for number, one in listing.segments.items() if number not in dropped]
    if built is not None:
        # In place of the oldest that it was made of, so that neighbours stay neighbours.
        at = min(step.merged) if step.merged else len(kept)
        kept.insert(at, _entry(segment, built.segment))
    removed = [*step.records, *(listing.ids[number] for number in sorted(dropped))]
    result = await database[INDEX].update_one(
        {"_id": project, "rev": listing.revision + 1},
        {
            "$set": {"segments": kept, "removed": removed, "building": None, "busy_until": 0},
            "$inc": {"rev": 1},
        },
    )
    if result.matched_count:
        return removed
    # A driver that sent the change twice hears that it came too late.
    return removed if segment in (await listing_of(database, project)).ids else None


def _entry(segment: ObjectId, known: Segment) -> Raw:
    return {
        "id": segment,
        "pages": known.pages,
        "entries": known.entries,
        "parts": known.parts,
        "last_at": known.last_at,
        "timeless": known.has_timeless,
    }


async def _give_up(database: AsyncDatabase[Raw], project: str, listing: Listing, segment: ObjectId) -> None:
    """Let others have their turn; what was built is named, and goes with the next one."""
    with contextlib.suppress(PyMongoError):
        await database[INDEX].update_one(
            {"_id": project, "rev": listing.revision + 1, "building": segment}, {"$set": {"busy_until": 0}}
        )


async def _remove(database: AsyncDatabase[Raw], project: str, ids: Sequence[ObjectId]) -> None:
    """Remove records and the parts of segments."""
    if not ids:
        return
    await database[TAIL].delete_many({"_id": {"$in": [{"p": project, "o": one} for one in ids]}})
    for one in ids:
        await database[PARTS].delete_many(_of_segment(project, one))
