"""Merging into collections without transactions.

Each document has a revision. A writer reads the documents that it has something for, merges, and writes each on the
condition that it still has the revision that was read, or is still not there. What another writer was faster at is
read and merged once more; since merging changes nothing where everything is there already, going on until nothing
changes is all that it takes. One document is written whole or not at all; of a batch a part may be written.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import msgspec
from pymongo import InsertOne, ReplaceOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError

from xray.exceptions import StoreError
from xray_server.documents import Document, merge_into
from xray_server.pages import CandidatePage, merge_pages, remainder
from xray_server.rollups import changed_buckets
from xray_server.stores.base import Bucket, WriteBatch
from xray_server.stores.encoding import merge_declarations, pack, unpack
from xray_server.stores.mongo import buckets, ids, pages, sightings
from xray_server.stores.mongo.codec import Codec, Stored
from xray_server.stores.mongo.forms import CODEC, RUNS, STAGES, Form, Raw
from xray_server.stores.mongo.races import MAX_ATTEMPTS, contended, overtaken, pause

READ_AT_ONCE = 1000
"""Documents whose ids are asked for in one find."""

MAX_DOCUMENT_BYTES = 16 * 2**20 - 2**17
"""What MongoDB takes, but for the names and all that is small."""

_as_json = msgspec.json.Encoder(order="deterministic").encode

Value = TypeVar("Value")
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Change(Generic[Value]):
    """A value as it was and as it is to be.

    Args:
        raw: What is in the collection, or None where it is not there.
        before: The same, decoded.
        after: As it is to be.
    """

    raw: Raw | None
    before: Value | None
    after: Value


class Merging(ABC, Generic[Value, Item]):
    """How what lies in one collection is merged.

    Args:
        codec: Encodes and decodes.
        database: The database.
        project: The project.
    """

    collection: ClassVar[str]
    expects_new: ClassVar[bool] = False
    """Whether it pays to try without reading first."""

    def __init__(self, codec: Codec, database: AsyncDatabase[Raw], project: str) -> None:
        self.codec = codec
        self.database = database
        self.project = project

    @abstractmethod
    async def decode(self, raws: Sequence[Raw]) -> Sequence[Value]:
        """What lies in the collection as values."""

    @abstractmethod
    def merged(self, before: Value | None, item: Item) -> Value | None:
        """What is there with what is to be written; None where that changes nothing. Called again in each round."""

    @abstractmethod
    async def encode(self, values: Sequence[Value]) -> Sequence[Raw]:
        """Values as they lie in the collection, but for their revisions."""

    async def announce(self, changes: Sequence[Change[Value]]) -> None:
        """Awaited with the changes of a round before they are made."""

    async def write(self, todo: Sequence[tuple[Any, Item]]) -> None:
        """Merge into the documents of the collection until all of it is there.

        Args:
            todo: The ``_id`` of each document, and what to merge into it.

        Raises:
            StoreError: Other writers were faster in every round, or a document is too large.
        """
        collection = self.database[self.collection].with_options(codec_options=CODEC)
        # In one order in all processes, so that a server that locks several documents at once never deadlocks.
        waiting = sorted(todo, key=lambda item: _order(item[0]))
        for attempt in range(MAX_ATTEMPTS):
            if not waiting:
                return
            is_guess = self.expects_new and attempt == 0
            known = {} if is_guess else await _read(collection, [key for key, _ in waiting])
            there = dict(zip(known, await self.decode(list(known.values())), strict=True))
            changes: list[Change[Value]] = []
            unsettled = []
            for key, item in waiting:
                name = _hashable(key)
                before = there.get(name)
                after = self.merged(before, item)
                if after is not None:
                    changes.append(Change(known.get(name), before, after))
                    unsettled.append((key, item))
            if not changes:
                return
            raws = await self.encode([change.after for change in changes])
            for raw in raws:
                _check_size(raw)
            await self.announce(changes)
            waiting = await _write(collection, [change.raw for change in changes], raws, unsettled)
            if waiting and not is_guess:
                await pause(attempt)
        raise contended(collection.name)


async def write_batch(codec: Codec, database: AsyncDatabase[Raw], project: str, batch: WriteBatch) -> None:
    """Merge a batch into the database; it is as durable as the write concern says when this returns.

    Raises:
        StoreError: A document has a field that there is no place for, or other writers were faster again and again.
        PyMongoError: The server could not be reached, or refused.
    """
    number = await codec.words.project(database, project, make=True)
    by_place: dict[tuple[str, int], CandidatePage] = {}
    for page in batch.pages:
        place = page.stage_id, page.page
        by_place[place] = merge_pages(by_place[place], page) if place in by_place else page
    # The first page may lie in the stage's document; whether it does shows when the two are merged.
    first = {stage_id: page for (stage_id, at), page in by_place.items() if at == 0 and stage_id in batch.stages}
    others = [page for (stage_id, at), page in by_place.items() if at > 0 or stage_id not in first]

    async def write_stages() -> None:
        stages = _Stages(codec, database, project)
        partials = {i: (_with_id(i, partial), first.get(i)) for i, partial in batch.stages.items()}
        await stages.write([(ids.key(number, i), item) for i, item in partials.items()])
        await write_pages(list(stages.too_large.values()))
        # Not where writing failed: the server may be writing still, and the first mark has to stay until it cannot be.
        await buckets.end(database, project, stages.marked)

    async def write_pages(some: Sequence[CandidatePage]) -> None:
        keys = [ids.page_key(ids.key(number, page.stage_id), page.page) for page in some]
        await _Pages(codec, database, project, batch.stages).write(list(zip(keys, some, strict=True)))

    async def write_candidates() -> None:
        # Before the pages: what can be found by its stage is to be found by its candidates too.
        await sightings.note(database, project, batch.pages)
        await _all(write_stages(), write_pages(others))

    await _all(
        _Runs(codec, database, project).write(
            [(ids.key(number, i), (_with_id(i, partial), None)) for i, partial in batch.runs.items()]
        ),
        write_candidates(),
        _Declarations(codec, database, project).write(
            [({"p": project, "t": stage_type}, (stage_type, given)) for stage_type, given in batch.declarations.items()]
        ),
    )


async def _all(*parts: Coroutine[Any, Any, None]) -> None:
    """Await all parts to their end before an error is raised: nothing goes on behind the caller's back."""
    for result in await asyncio.gather(*parts, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def _with_id(document_id: str, partial: Document) -> Document:
    return {**partial, "id": document_id}


class _Documents(Merging[Stored, tuple[Document, CandidatePage | None]]):
    form: ClassVar[Form]

    async def decode(self, raws: Sequence[Raw]) -> Sequence[Stored]:
        return await self.codec.decode(self.database, self.form, raws)

    def merged(self, before: Stored | None, item: tuple[Document, CandidatePage | None]) -> Stored | None:
        known = before.document if before else {}
        document = merge_into(dict(known), item[0])
        page = self.page(before.page if before else None, document, item[1])
        # As JSON: to Python, True and 1 are the same.
        if before and page is before.page and _as_json(document) == _as_json(known):
            return None
        return Stored(document, page)

    def page(self, before: CandidatePage | None, document: Document, new: CandidatePage | None) -> CandidatePage | None:
        """The page that is to lie in the document."""
        return before

    async def encode(self, values: Sequence[Stored]) -> Sequence[Raw]:
        return await self.codec.encode(self.database, self.form, self.project, values)


class _Runs(_Documents):
    collection = RUNS.collection
    form = RUNS


class _Stages(_Documents):
    """Writes stages, between two marks of the buckets that they are in and were in before."""

    collection = STAGES.collection
    form = STAGES

    def __init__(self, codec: Codec, database: AsyncDatabase[Raw], project: str) -> None:
        super().__init__(codec, database, project)
        self.marked: set[Bucket] = set()
        self.too_large: dict[str, CandidatePage] = {}
        """By stage: what of its first page has no place in its document."""

    def page(self, before: CandidatePage | None, document: Document, new: CandidatePage | None) -> CandidatePage | None:
        if new is None:
            return before
        self.too_large.pop(new.stage_id, None)
        merged = merge_pages(before, new) if before else new
        if merged is before or pages.may_be_inline(merged, document):
            return merged
        rest = remainder(new, before) if before else new
        if rest is not None:
            self.too_large[new.stage_id] = rest
        return before

    async def announce(self, changes: Sequence[Change[Stored]]) -> None:
        found: set[Bucket] = set()
        for change in changes:
            found.update(changed_buckets(change.before.document if change.before else {}, change.after.document))
        found -= self.marked
        await buckets.begin(self.database, self.project, found)
        self.marked.update(found)


class _Pages(Merging[CandidatePage, CandidatePage]):
    """Pages in their own collection: nearly always new, and read only where it turns out that they are not."""

    collection = pages.COLLECTION
    expects_new = True

    def __init__(
        self, codec: Codec, database: AsyncDatabase[Raw], project: str, stages: Mapping[str, Document]
    ) -> None:
        super().__init__(codec, database, project)
        self._stages = stages

    async def decode(self, raws: Sequence[Raw]) -> Sequence[CandidatePage]:
        return await self.codec.decode_pages(self.database, raws)

    def merged(self, before: CandidatePage | None, item: CandidatePage) -> CandidatePage | None:
        after = merge_pages(before, item) if before else item
        return None if after is before else after

    async def encode(self, values: Sequence[CandidatePage]) -> Sequence[Raw]:
        return await self.codec.encode_pages(self.database, self.project, values, self._stages)


Declared = tuple[str, list[dict[str, Any]]]


class _Declarations(Merging[tuple[str, Sequence[Mapping[str, Any]]], Declared]):
    collection = "declarations"

    async def decode(self, raws: Sequence[Raw]) -> Sequence[tuple[str, Sequence[Mapping[str, Any]]]]:
        return [(raw["_id"]["t"], unpack(raw["metrics"])) for raw in raws]

    def merged(
        self, before: tuple[str, Sequence[Mapping[str, Any]]] | None, item: Declared
    ) -> tuple[str, Sequence[Mapping[str, Any]]] | None:
        stage_type, given = item
        after = merge_declarations(before[1] if before else [], given)
        return None if before and after == before[1] else (stage_type, after)

    async def encode(self, values: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> Sequence[Raw]:
        return [
            {"_id": {"p": self.project, "t": stage_type}, "metrics": pack(declared)} for stage_type, declared in values
        ]


async def _read(collection: AsyncCollection[Raw], keys: Sequence[Any]) -> dict[Any, Raw]:
    found: dict[Any, Raw] = {}
    for start in range(0, len(keys), READ_AT_ONCE):
        some = list(keys[start : start + READ_AT_ONCE])
        async for raw in collection.find({"_id": {"$in": some}}, batch_size=READ_AT_ONCE + 1):
            found[_hashable(raw["_id"])] = raw
    return found


async def _write(
    collection: AsyncCollection[Raw],
    before: Sequence[Raw | None],
    after: Sequence[Raw],
    unsettled: list[tuple[Any, Any]],
) -> list[tuple[Any, Any]]:
    """Make changes where nobody was faster; what has to be looked at again."""
    operations = [_operation(*pair) for pair in zip(before, after, strict=True)]
    expected = sum(raw is not None for raw in before)
    try:
        result = await collection.bulk_write(operations, ordered=False)
    except BulkWriteError as error:
        lost = overtaken(error)
        if int(error.details["nMatched"]) + sum(before[index] is not None for index in lost) == expected:
            return [unsettled[index] for index in lost]
        return unsettled
    # MongoDB says how many documents it found in the revision that was read, not which. Those that were written
    # settle in the next round, in which merging does not change them.
    return [] if result.matched_count == expected else unsettled


def _check_size(raw: Raw) -> None:
    size = sum(len(value) for value in raw.values() if isinstance(value, str | bytes))
    if size > MAX_DOCUMENT_BYTES:
        raise StoreError(
            f"A document of {size / 2**20:.0f} MiB, compressed, is more than MongoDB takes.",
            code="too_large",
            hint="Record less of the input, the output or the candidates.",
        )


def _operation(before: Raw | None, after: Raw) -> InsertOne[Raw] | ReplaceOne[Raw]:
    if before is None:
        return InsertOne(after)
    revision = before.get("v")  # what was never changed has none
    where = {"_id": after["_id"], "v": revision}
    where |= {name: before[name] for name in ("r", "st") if name in before}  # the shard keys of stages and pages
    return ReplaceOne(where, {**after, "v": int(revision or 0) + 1})


def _hashable(key: Any) -> Any:
    return tuple(key.values()) if isinstance(key, Mapping) else key


def _order(key: Any) -> tuple[Any, ...]:
    # Keys are in the order of the index over them, which is the smaller for it.
    return tuple(map(str, key.values())) if isinstance(key, Mapping) else (isinstance(key, bytes), key)
