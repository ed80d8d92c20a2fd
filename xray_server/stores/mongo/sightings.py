"""The index over candidate ids in MongoDB, without transactions.

Three collections. ``sighting_tail`` has a record for each batch, written before the pages of the batch: a page that
somebody can find is in a record, or in the segment that was made of it. ``sighting_parts`` has what segments consist
of. ``sighting_index`` has one document for each project that names its segments; it changes by revision, so that of
several processes one is faster and the others let it be, and readers see one list of segments or the next.

What leaves the records is in the list before: a look-up reads the records first, then the list. Where a segment of its
list has gone meanwhile, because it was merged, it begins anew. ``indexing`` beside this builds the segments.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bson import ObjectId
from bson.max_key import MaxKey
from bson.min_key import MinKey
from pymongo.asynchronous.database import AsyncDatabase

from xray.exceptions import StoreError
from xray_server.pages import CandidatePage
from xray_server.query.ast import Compare, Field, Test
from xray_server.sightings.entries import id_hash, part_of, places_of
from xray_server.sightings.hunt import SEGMENTS_AT_ONCE, Hunt, sightings_among
from xray_server.sightings.pages import PAGES_PER_BLOCK, Place, unpack_places
from xray_server.sightings.segments import Segment
from xray_server.sightings.tail import listed, pack_tail, records_of, search_tail
from xray_server.stores.base import Sighting
from xray_server.stores.mongo import reads
from xray_server.stores.mongo.codec import Codec
from xray_server.stores.mongo.compiler import Compiler
from xray_server.stores.mongo.documents import SightingIndex, SightingPart, SightingRecord, collection_of
from xray_server.stores.mongo.filters import Filter
from xray_server.stores.mongo.forms import STAGES
from xray_server.stores.mongo.known import Wanted

Raw = dict[str, Any]

TAIL, PARTS, INDEX = (collection_of(model) for model in (SightingRecord, SightingPart, SightingIndex))

ATTEMPTS = 20
"""How often a look-up begins anew because segments were merged under it."""

PART, BLOCK = 0, 1
"""What an entry of ``sighting_parts`` is."""


async def note(database: AsyncDatabase[Raw], project: str, pages: Sequence[CandidatePage]) -> None:
    """Note that pages are about to be written; they must not be before this returns.

    Args:
        database: The database.
        project: The project.
        pages: The pages, each with the candidates that came.
    """
    came = [listed(Place(page.stage_id, page.page, page.started_at), page.checksums) for page in pages]
    records = [
        {
            "_id": {"p": project, "o": ObjectId()},
            "pages": len(record),
            "entries": sum(map(len, record)),
            "data": pack_tail(record),
        }
        for record in records_of(came)
    ]
    if records:
        await database[TAIL].insert_many(records, ordered=False)


# --- looking up -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Listing:
    """What the document of a project says.

    Args:
        revision: Its revision.
        segments: The segments, the oldest first; their numbers are their places.
        ids: The id of each.
        removed: What is to be removed: ids of records, and of segments.
        building: The segment that somebody builds, or was building.
        busy_until: Until when nobody else is to build one, in milliseconds since 1970.
    """

    revision: int = 0
    segments: dict[int, Segment] = field(default_factory=dict)
    ids: list[ObjectId] = field(default_factory=list)
    removed: list[ObjectId] = field(default_factory=list)
    building: ObjectId | None = None
    busy_until: int = 0


async def listing_of(database: AsyncDatabase[Raw], project: str) -> Listing:
    """What is in the index of a project."""
    raw = await database[INDEX].find_one({"_id": project})
    if raw is None:
        return Listing()
    segments = {
        number: Segment(
            int(one["pages"]), int(one["entries"]), int(one["parts"]), _whole(one["last_at"]), bool(one["timeless"])
        )
        for number, one in enumerate(raw["segments"])
    }
    ids = [one["id"] for one in raw["segments"]]
    return Listing(int(raw["rev"]), segments, ids, raw["removed"], raw["building"], int(raw["busy_until"]))


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


class _OvertakenError(Exception):
    """A segment of the list that was read is not there any more."""


async def find(
    codec: Codec,
    database: AsyncDatabase[Raw],
    project: str,
    candidate_id: str,
    *,
    label: str | None,
    since: int | None,
    until: int | None,
    after: tuple[int | None, str, int] | None,
    limit: int,
) -> list[Sighting]:
    """What ``Store.sightings`` returns.

    Args:
        codec: Decodes the stages and pages.
        database: The database.
        project: The project.
        candidate_id: The candidate's id.
        label: See ``Store.sightings``, as for the others.
        since: As above.
        until: As above.
        after: As above.
        limit: As above.
    """
    for _ in range(ATTEMPTS):
        hunt = Hunt(label=label, since=since, until=until, after=after, limit=limit)
        with contextlib.suppress(_OvertakenError):
            await _find(codec, database, project, candidate_id, hunt, label)
            return hunt.answer()
    raise StoreError("The segments of the index over candidate ids kept changing.", code="contended")


async def _find(
    codec: Codec, database: AsyncDatabase[Raw], project: str, candidate_id: str, hunt: Hunt, label: str | None
) -> None:
    known = id_hash(candidate_id)
    async for raw in database[TAIL].find(records_where(project), {"data": 1}):
        hunt.add(search_tail(raw["data"], known))
    listing = await listing_of(database, project)
    waiting = hunt.order(listing.segments)
    while True:
        unread = listing.segments[waiting[0]] if waiting else None
        if hunt.is_over(unread):
            return
        places = hunt.to_open(unread)
        if places:
            hunt.take(sightings_among(await _opened(codec, database, project, places, label), candidate_id))
        elif waiting:
            some, waiting = waiting[:SEGMENTS_AT_ONCE], waiting[SEGMENTS_AT_ONCE:]
            hunt.add(await _in_segments(database, project, listing, some, known))


async def _in_segments(
    database: AsyncDatabase[Raw], project: str, listing: Listing, numbers: Sequence[int], known: int
) -> list[Place]:
    of = {listing.ids[number]: listing.segments[number].parts for number in numbers}
    parts = await _read(
        database, [part_key(project, segment, PART, part_of(known, count)) for segment, count in of.items()]
    )
    found: dict[tuple[ObjectId, int], list[int]] = {}
    for (segment, _), data in parts.items():
        for place in places_of(data, known, of[segment]):
            found.setdefault((segment, place // PAGES_PER_BLOCK), []).append(place % PAGES_PER_BLOCK)
    blocks = await _read(database, [part_key(project, segment, BLOCK, number) for segment, number in sorted(found)])
    return [place for key, data in blocks.items() for place in unpack_places(data, found[key])]


async def _read(database: AsyncDatabase[Raw], keys: Sequence[Raw]) -> dict[tuple[ObjectId, int], bytes]:
    """Parts or blocks, by segment and number.

    Raises:
        _OvertakenError: One of them is not there.
    """
    cursor = database[PARTS].find({"_id": {"$in": list(keys)}}) if keys else None
    found = {} if cursor is None else {(raw["_id"]["g"], int(raw["_id"]["n"])): raw["data"] async for raw in cursor}
    if len(found) < len(keys):
        raise _OvertakenError
    return found


async def _opened(
    codec: Codec, database: AsyncDatabase[Raw], project: str, places: Sequence[Place], label: str | None
) -> list[Sighting]:
    """The pages in these places that there are, with their stages, of a pipeline if one is given."""
    where: Filter = {}
    if label is not None:
        of_pipeline = Test(Field(("pipeline", "label")), Compare("eq", label))
        needed = Wanted()
        needed.condition(of_pipeline, STAGES)
        where = Compiler(await needed.look_up(codec.words, database, project)).stage(of_pipeline).over
    wanted = [(str(place.stage), place.page) for place in places]
    return [Sighting(stage, page) for stage, page in await reads.at(codec, database, project, wanted, where)]


def records_where(project: str) -> Raw:
    """The filter for a project's records, by the index over ``_id``."""
    return {"_id": {"$gte": {"p": project, "o": MinKey()}, "$lte": {"p": project, "o": MaxKey()}}}


def part_key(project: str, segment: ObjectId, kind: int, number: Any) -> Raw:
    """The ``_id`` of a part (``PART``) or a block (``BLOCK``) of a segment."""
    return {"p": project, "g": segment, "k": kind, "n": number}
