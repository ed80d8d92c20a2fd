"""Named documents: one document each, so that every step is atomic by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bson import MaxKey, MinKey
from bson.datetime_ms import DatetimeMS
from pymongo import ReturnDocument
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import DuplicateKeyError

from xray_server.documents import Document
from xray_server.stores.base import NamedDocument
from xray_server.stores.encoding import pack, unpack
from xray_server.stores.mongo.forms import Raw
from xray_server.stores.mongo.races import MAX_ATTEMPTS, contended, pause

COLLECTION = "named"


async def keep(
    collection: AsyncCollection[Raw], project: str, kind: str, name: str, document: Document, now: int
) -> NamedDocument:
    """What ``Store.keep_named`` does, at a time in milliseconds since 1970."""
    key, packed, time = _key(project, kind, name), pack(document), DatetimeMS(now)
    for attempt in range(MAX_ATTEMPTS):
        there = await collection.find_one({"_id": key})
        if there is not None and there["document"] == packed:
            return _decode(there)
        try:
            kept: Raw | None = await collection.find_one_and_update(
                {"_id": key},
                {
                    "$set": {"document": packed},
                    "$max": {"updated_at": time},
                    "$setOnInsert": {"created_at": time},
                },
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
            assert kept is not None
            return _decode(kept)
        except DuplicateKeyError:
            # Two writers of a new name at once: the one that came second tries again.
            await pause(attempt)
    raise contended(COLLECTION)


async def one(collection: AsyncCollection[Raw], project: str, kind: str, name: str) -> NamedDocument | None:
    """What ``Store.named`` returns."""
    found = await collection.find_one({"_id": _key(project, kind, name)})
    return None if found is None else _decode(found)


async def every(collection: AsyncCollection[Raw], project: str, kind: str) -> list[NamedDocument]:
    """What ``Store.all_named`` returns."""
    # A range of _id, so that its own index serves it.
    of_kind = {
        "_id": {"$gte": {"p": project, "k": kind, "n": MinKey()}, "$lte": {"p": project, "k": kind, "n": MaxKey()}}
    }
    found = [_decode(raw) async for raw in collection.find(of_kind)]
    return sorted(found, key=lambda each: each.name)


async def remove(collection: AsyncCollection[Raw], project: str, kind: str, name: str) -> bool:
    """What ``Store.remove_named`` does."""
    return (await collection.delete_one({"_id": _key(project, kind, name)})).deleted_count > 0


def _key(project: str, kind: str, name: str | MinKey | MaxKey) -> Raw:
    return {"p": project, "k": kind, "n": name}


def _decode(raw: Mapping[str, Any]) -> NamedDocument:
    key = raw["_id"]
    return NamedDocument(key["k"], key["n"], unpack(raw["document"]), int(raw["created_at"]), int(raw["updated_at"]))
