"""Merging into collections without transactions.

Each document has a revision. A writer reads the documents that it has something for, merges, and writes each on the
condition that it still has the revision that was read, or is still not there. What another writer was faster at is
read and merged once more; since merging changes nothing where everything is there already, going on until nothing
changes is all that it takes. One document is written whole or not at all; of a batch a part may be written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from pymongo import InsertOne, ReplaceOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError

from xray.exceptions import StoreError
from xray_server.documents import Document, merge_into
from xray_server.pages import CandidatePage, merge_pages
from xray_server.rollups import changed_buckets
from xray_server.stores.base import Bucket, WriteBatch
from xray_server.stores.encoding import merge_declarations, pack, unpack
from xray_server.stores.mongo import buckets, forms, sightings
from xray_server.stores.mongo.forms import CODEC, RUNS, STAGES, Form, Raw
from xray_server.stores.mongo.races import MAX_ATTEMPTS, contended, overtaken, pause

READ_AT_ONCE = 1000
"""Documents whose ids are asked for in one find."""

MAX_DOCUMENT_BYTES = 16 * 2**20 - 2**17
"""What MongoDB takes, but for the names and all that is small."""

_as_json = msgspec.json.Encoder(order="deterministic").encode


@dataclass(frozen=True, slots=True)
class Change:
    """A document as it was and as it is to be.

    Args:
        before: As it is in the collection, or None where it is not there.
        after: As it is to be, but for its revision.
        buckets: Of a stage: the buckets whose rollups this puts out of date.
    """

    before: Raw | None
    after: Raw
    buckets: frozenset[Bucket] = frozenset()


Merge = Callable[[Any, Raw | None], Change | None]
"""What is to be written and the document that is there → the change that this makes, or None where it makes none."""

Announce = Callable[[Sequence[Change]], Awaitable[None]]


async def write_batch(database: AsyncDatabase[Raw], project: str, batch: WriteBatch) -> None:
    """Merge a batch into the database; it is as durable as the write concern says when this returns.

    Raises:
        StoreError: A document has a field that there is no place for, or other writers were faster again and again.
        PyMongoError: The server could not be reached, or refused.
    """
    # Before the pages: what can be found by its stage is to be found by its candidates too.
    await sightings.note(database, project, batch.pages)
    # All parts come to their end before an error is raised: nothing goes on behind the caller's back.
    done = await asyncio.gather(
        _write_documents(database, RUNS, project, batch.runs),
        _write_stages(database, project, batch.stages),
        _write_pages(database, project, batch.pages),
        _write_declarations(database, project, batch.declarations),
        return_exceptions=True,
    )
    for result in done:
        if isinstance(result, BaseException):
            raise result


async def _write_documents(
    database: AsyncDatabase[Raw],
    form: Form,
    project: str,
    partials: Mapping[str, Document],
    announce: Announce | None = None,
) -> None:
    def merged(partial: Document, there: Raw | None) -> Change | None:
        before = form.decode(there) if there else {}
        after = merge_into(dict(before), partial)
        # As JSON: to Python, True and 1 are the same.
        if there and _as_json(after) == _as_json(before):
            return None
        out_of_date = frozenset(changed_buckets(before, after) if form is STAGES else ())
        return Change(there, form.encode(project, after), out_of_date)

    todo = [
        (forms.key(project, document_id), {**partial, "id": document_id}) for document_id, partial in partials.items()
    ]
    await merge(database[form.collection], todo, merged, announce=announce)


async def _write_stages(database: AsyncDatabase[Raw], project: str, partials: Mapping[str, Document]) -> None:
    """Write stages, between two marks of the buckets that they are in and were in before."""
    marked: set[Bucket] = set()

    async def announce(changes: Sequence[Change]) -> None:
        found = {bucket for change in changes for bucket in change.buckets} - marked
        await buckets.begin(database, project, found)
        marked.update(found)

    await _write_documents(database, STAGES, project, partials, announce)
    # Not where writing failed: the server may be writing still, and the first mark has to stay until it cannot be.
    await buckets.end(database, project, marked)


async def _write_pages(database: AsyncDatabase[Raw], project: str, pages: Sequence[CandidatePage]) -> None:
    by_key: dict[tuple[str, int], CandidatePage] = {}
    for page in pages:
        there = by_key.get((page.stage_id, page.page))
        by_key[page.stage_id, page.page] = merge_pages(there, page) if there else page

    def merged(page: CandidatePage, there: Raw | None) -> Change | None:
        before = forms.decode_page(there) if there else None
        after = merge_pages(before, page) if before else page
        return None if after is before else Change(there, forms.encode_page(project, after))

    todo = [(forms.page_key(project, page.stage_id, page.page), page) for page in by_key.values()]
    # Pages are large and nearly always new: they are read only where it turns out that they are not.
    await merge(database["pages"], todo, merged, expect_new=True)


async def _write_declarations(
    database: AsyncDatabase[Raw], project: str, declarations: Mapping[str, list[dict[str, Any]]]
) -> None:
    def merged(declared: tuple[str, list[dict[str, Any]]], there: Raw | None) -> Change | None:
        stage_type, given = declared
        before = unpack(there["metrics"]) if there else []
        after = merge_declarations(before, given)
        if there and after == before:
            return None
        return Change(there, {"_id": {"p": project, "t": stage_type}, "metrics": pack(after)})

    todo = [({"p": project, "t": stage_type}, (stage_type, given)) for stage_type, given in declarations.items()]
    await merge(database["declarations"], todo, merged)


async def merge(
    collection: AsyncCollection[Raw],
    todo: Sequence[tuple[Raw, Any]],
    merged: Merge,
    *,
    expect_new: bool = False,
    announce: Announce | None = None,
) -> None:
    """Merge into the documents of a collection until all of it is there.

    Args:
        collection: The collection.
        todo: The ``_id`` of each document, and what to merge into it.
        merged: Merges; called again in each round.
        expect_new: Whether to try without reading first.
        announce: Awaited with the changes of a round before they are made.

    Raises:
        StoreError: Other writers were faster in every round, or a document is too large.
    """
    collection = collection.with_options(codec_options=CODEC)
    # In one order in all processes, so that a server that locks several documents at once never deadlocks.
    waiting = sorted(todo, key=lambda item: tuple(map(str, item[0].values())))
    for attempt in range(MAX_ATTEMPTS):
        if not waiting:
            return
        known = {} if expect_new and attempt == 0 else await _read(collection, [key for key, _ in waiting])
        changes: list[Change] = []
        unsettled = []
        for key, item in waiting:
            change = merged(item, known.get(_hashable(key)))
            if change is not None:
                _check_size(change.after)
                changes.append(change)
                unsettled.append((key, item))
        if not changes:
            return
        if announce is not None:
            await announce(changes)
        waiting = await _write(collection, changes, unsettled)
        if waiting and not (expect_new and attempt == 0):
            await pause(attempt)
    raise contended(collection.name)


async def _read(collection: AsyncCollection[Raw], keys: Sequence[Raw]) -> dict[tuple[Any, ...], Raw]:
    found: dict[tuple[Any, ...], Raw] = {}
    for start in range(0, len(keys), READ_AT_ONCE):
        some = list(keys[start : start + READ_AT_ONCE])
        async for raw in collection.find({"_id": {"$in": some}}, batch_size=READ_AT_ONCE + 1):
            found[_hashable(raw["_id"])] = raw
    return found


async def _write(
    collection: AsyncCollection[Raw], changes: Sequence[Change], unsettled: list[tuple[Raw, Any]]
) -> list[tuple[Raw, Any]]:
    """Make changes where nobody was faster; what has to be looked at again."""
    operations = [_operation(change) for change in changes]
    expected = sum(change.before is not None for change in changes)
    try:
        result = await collection.bulk_write(operations, ordered=False)
    except BulkWriteError as error:
        lost = overtaken(error)
        if int(error.details["nMatched"]) + sum(changes[index].before is not None for index in lost) == expected:
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


def _operation(change: Change) -> InsertOne[Raw] | ReplaceOne[Raw]:
    if change.before is None:
        return InsertOne({**change.after, "rev": 1})
    revision = int(change.before["rev"])
    where = {"_id": change.after["_id"], "rev": revision}
    if "run_id" in change.before:
        where["run_id"] = change.before["run_id"]  # the shard key of stages
    return ReplaceOne(where, {**change.after, "rev": revision + 1})


def _hashable(key: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(key.values())
