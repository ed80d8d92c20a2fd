"""Reading candidate pages: all of a stage's, those of many stages, and single ones.

The only page of a small stage lies in the stage's document. What came for such a stage after that page had grown too
long lies in the pages' own collection, and belongs to the page inside.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from pymongo.asynchronous.database import AsyncDatabase

from xray_server.documents import Document
from xray_server.pages import CandidatePage, merge_pages
from xray_server.stores.mongo import ids, pages
from xray_server.stores.mongo.codec import Codec
from xray_server.stores.mongo.forms import STAGES, Raw

PAGES_PER_READ = 32

FEW_PAGES = 2
"""So many pages of a stage are worth reading along with those of other stages."""

_OF_PAGE: Final[Mapping[str, int]] = dict.fromkeys((*pages.INLINE, pages.OVER, pages.START, "r"), 1)
_Asked = Callable[[], AbstractAsyncContextManager[AsyncDatabase[Raw]]]


async def each(asked: _Asked, codec: Codec, project: str, stage_id: str, first: int) -> AsyncIterator[CandidatePage]:
    """The pages of a stage in order.

    Args:
        asked: Gives the database for one thing to be done with it.
        codec: Decodes.
        project: The project.
        stage_id: The stage's id.
        first: The number of the first page that is wanted.
    """
    async with asked() as database:
        stage = ids.key(await codec.words.project(database, project), stage_id)
        cursor = database[pages.COLLECTION].find(
            {**ids.pages_of(stage, first), "st": stage}, sort=[("_id", 1)], batch_size=PAGES_PER_READ
        )
    async with cursor:
        async with asked():
            # At once: of most stages one of the two has something.
            raw, raws = await asyncio.gather(
                _inside(database, [stage] if first == 0 else []), cursor.to_list(PAGES_PER_READ)
            )
            inside = next(iter(await codec.decode_pages(database, raw)), None)
        while True:
            async with asked():
                found = await codec.decode_pages(database, raws)
            if inside is not None:
                found = _joined(inside, found)
                inside = None
            for page in found:
                yield page
            if len(raws) < PAGES_PER_READ:
                return
            async with asked():
                raws = await cursor.to_list(PAGES_PER_READ)


async def of_many(
    codec: Codec, database: AsyncDatabase[Raw], project: str, stage_ids: Sequence[str]
) -> dict[str, list[CandidatePage]]:
    """What ``Store.pages_of_many`` returns."""
    keys = await _keys(codec, database, project, stage_ids)
    inside, outside = await asyncio.gather(_inside(database, list(keys)), _outside(database, keys))
    many = {stage for stage, (count, _) in outside.items() if count > FEW_PAGES}
    few = [stage for stage in outside if stage not in many]
    raws = await database[pages.COLLECTION].find({"st": {"$in": few}}, sort=[("_id", 1)]).to_list(None) if few else []
    found: dict[str, list[CandidatePage]] = {stage_id: [] for key, stage_id in keys.items() if key not in many}
    for page in await codec.decode_pages(database, [raw for raw in inside if raw["_id"] not in many]):
        found[page.stage_id] = [page]
    own: dict[str, list[CandidatePage]] = {}
    for page in await codec.decode_pages(database, raws):
        own.setdefault(page.stage_id, []).append(page)
    for stage_id, some in own.items():
        found[stage_id] = _joined(found[stage_id][0], some) if found[stage_id] else some
    return found


async def counts(codec: Codec, database: AsyncDatabase[Raw], project: str, stage_ids: Sequence[str]) -> dict[str, int]:
    """What ``Store.candidate_counts`` returns."""
    keys = await _keys(codec, database, project, stage_ids)
    wanted = {pages.COUNT: 1, pages.OVER: 1}
    inside, outside = await asyncio.gather(_inside(database, list(keys), wanted), _outside(database, keys))
    found = dict.fromkeys(keys, 0) | {key: count for key, (_, count) in outside.items()}
    for raw in inside:
        if raw["_id"] in outside:
            del found[raw["_id"]]  # the same candidates may be in both: only who reads them can tell
        else:
            found[raw["_id"]] = pages.count_of(raw)
    return {keys[key]: count for key, count in found.items()}


async def at(
    codec: Codec,
    database: AsyncDatabase[Raw],
    project: str,
    places: Iterable[tuple[str, int]],
    where: Mapping[str, Any],
) -> list[tuple[Document, CandidatePage]]:
    """Single pages, each with its stage; those that there are.

    Args:
        codec: Decodes.
        database: The database.
        project: The project.
        places: The stage's id and the page's number, of each.
        where: What is asked of the stages besides.
    """
    number = await codec.words.project(database, project)
    keys = {(ids.key(number, stage_id), page): stage_id for stage_id, page in places}
    wanted = [ids.page_key(stage, page) for stage, page in keys]
    raw_stages, raw_pages = await asyncio.gather(
        database[STAGES.collection].find({"_id": {"$in": list({stage for stage, _ in keys})}, **where}).to_list(None),
        database[pages.COLLECTION].find({"_id": {"$in": wanted}}).to_list(None),
    )
    stored = {one.document["id"]: one for one in await codec.decode(database, STAGES, raw_stages)}
    own = {(page.stage_id, page.page): page for page in await codec.decode_pages(database, raw_pages)}
    found: list[tuple[Document, CandidatePage]] = []
    for (_, page), stage_id in keys.items():
        stage = stored.get(stage_id)
        if stage is None:
            continue
        parts = [own[stage_id, page]] if (stage_id, page) in own else []
        if stage.page is not None and page == stage.page.page:
            parts = _joined(stage.page, parts)
        found += [(dict(stage.document), part) for part in parts]
    return found


async def _keys(
    codec: Codec, database: AsyncDatabase[Raw], project: str, stage_ids: Sequence[str]
) -> dict[ids.Key, str]:
    number = await codec.words.project(database, project)
    return {ids.key(number, stage_id): stage_id for stage_id in stage_ids}


async def _inside(
    database: AsyncDatabase[Raw], stages: Sequence[ids.Key], wanted: Mapping[str, int] = _OF_PAGE
) -> list[Raw]:
    """What some stages' documents have of their pages, of those that have one."""
    if not stages:
        return []
    where = {"_id": {"$in": list(stages)} if len(stages) > 1 else stages[0], pages.BLOCK: {"$ne": None}}
    return await database[STAGES.collection].find(where, wanted, batch_size=len(stages) + 1).to_list(None)


async def _outside(database: AsyncDatabase[Raw], stages: Iterable[ids.Key]) -> dict[ids.Key, tuple[int, int]]:
    """How many pages some stages have in the pages' own collection, and how many candidates are on these."""
    of_each = {"_id": "$st", "pages": {"$sum": 1}, "candidates": {"$sum": f"${pages.COUNT}"}}
    steps: list[Raw] = [{"$match": {"st": {"$in": list(stages)}}}, {"$group": of_each}]
    cursor = await database[pages.COLLECTION].aggregate(steps)
    return {raw["_id"]: (int(raw["pages"]), int(raw["candidates"])) async for raw in cursor}


def _joined(inside: CandidatePage, own: list[CandidatePage]) -> list[CandidatePage]:
    """The page of a stage's document with the pages outside of it, of which one may be more of it."""
    if own and own[0].page == inside.page:
        return [merge_pages(inside, own[0]), *own[1:]]
    return [inside, *own]
