"""The index over candidate ids in MongoDB: a process that dies at any step, two at once, and retention."""

from __future__ import annotations

import asyncio

import pytest
from bson import ObjectId

from tests.mongodb import Databases
from xray_server.conformance.sightings import (
    POOL,
    T0,
    columns_of,
    everything,
    expected,
    index_everything,
    stage_of,
)
from xray_server.pages import paginate
from xray_server.sightings import segments
from xray_server.stores.base import WriteBatch
from xray_server.stores.mongo import MongoStore, indexing, sightings
from xray_server.stores.mongo.documents import SightingIndex, SightingPart, SightingRecord, collection_of
from xray_server.testing_data import PROJECT

COUNT = 24


@pytest.fixture
def url(databases: Databases, tmp_path):
    return databases.url(tmp_path)


@pytest.fixture(autouse=True)
def small_segments(monkeypatch):
    for name, value in (
        ("PAGES_PER_SEGMENT", 4), ("ENTRIES_PER_SEGMENT", 12), ("PAGES_AT_ONCE", 8), ("ENTRIES_AT_ONCE", 24),
        ("FAN_OUT", 2),
    ):  # fmt: skip
        monkeypatch.setattr(segments, name, value)


def on_database(url, use):
    """Use an open store, and the database behind it."""

    async def run():
        store = MongoStore(url)
        await store.open()
        try:
            async with store._asked_to("write") as database:
                return await use(store, database)
        finally:
            await store.close()

    return asyncio.run(run())


async def write(store, numbers):
    for number in numbers:
        stage = stage_of(number, run=number, label="shop", start=T0 + number)
        pages = paginate(stage["run_id"], stage["id"], T0 + number, columns_of(POOL[:3]))
        run = {"id": stage["run_id"], "started_at": T0 + number, "status": "success"}
        await store.write(PROJECT, WriteBatch(runs={run["id"]: run}, stages={stage["id"]: stage}, pages=pages))


class DiedError(Exception):
    """The process is gone."""


class MortalDatabase:
    """A database whose user dies before or after so many operations, and does nothing any more.

    Args:
        database: The database.
        lives: How many operations it lives.
        after: Whether the last of them still happens.
    """

    def __init__(self, database, lives, *, after):
        self._database = database
        self.lives = lives
        self._after = after

    def __getitem__(self, name):
        return MortalCollection(self, self._database[name])

    async def spend(self, operation):
        self.lives -= 1
        if self.lives < 0 or (self.lives == 0 and not self._after):
            operation.close()
            raise DiedError
        result = await operation
        if self.lives == 0:
            raise DiedError
        return result


class MortalCollection:
    def __init__(self, owner, collection):
        self._owner = owner
        self._collection = collection

    def __getattr__(self, name):
        found = getattr(self._collection, name)
        return found if name == "find" else lambda *args, **named: self._owner.spend(found(*args, **named))


async def leftovers(database):
    """What is in the collections and belongs to nothing."""
    listing = await sightings.listing_of(database, PROJECT)
    parts = {raw["_id"]["g"] async for raw in database[sightings.PARTS].find({})}
    removed = set(listing.removed)
    tail = {raw["_id"]["o"] async for raw in database[sightings.TAIL].find({})}
    return parts - set(listing.ids), tail & removed


async def indexed_or_waiting(database):
    """How many pages the segments have and the records that count; a page in two of them counts twice."""
    listing = await sightings.listing_of(database, PROJECT)
    waiting = [raw async for raw in database[sightings.TAIL].find({}) if raw["_id"]["o"] not in listing.removed]
    indexed = sum(segment.pages for segment in listing.segments.values())
    assert sum(segment.entries for segment in listing.segments.values()) == 3 * indexed
    return indexed + sum(int(raw["pages"]) for raw in waiting)


def test_what_is_stored_is_what_is_declared(url):
    """Records, parts and the list of segments are of their declared classes."""

    async def use(store, database):
        await write(store, range(COUNT))
        await index_everything(store)
        await write(store, range(COUNT, COUNT + 2))
        for model in (SightingRecord, SightingPart, SightingIndex):
            stored = await database[collection_of(model)].find().to_list()
            assert stored, model
            for document in stored:
                model.model_validate(document)
                assert set(document) - {"_id"} <= set(model.model_fields)

    on_database(url, use)


@pytest.mark.parametrize("after", [False, True])
def test_a_process_that_dies_at_any_step_costs_nothing(url, monkeypatch, after):
    """All sightings are found after each death, nothing is indexed twice, and what was left over goes with the next."""
    monkeypatch.setattr(indexing, "BUSY_MS", -1)  # the next one takes it for dead at once

    async def use(store, database):
        deaths = 0
        numbers = iter(range(1000))
        for lives in range(1, 16):
            await write(store, [next(numbers) for _ in range(6)])
            mortal = MortalDatabase(database, lives, after=after)
            try:
                while await indexing.index(store, mortal, PROJECT, look_for_gone=False):
                    pass
            except DiedError:
                deaths += 1
            wanted = expected(await everything(store, PROJECT), POOL[1], {})
            assert await store.sightings(PROJECT, POOL[1], limit=1000) == wanted
            assert await indexed_or_waiting(database) == len(wanted)
        assert deaths > 10
        await write(store, [next(numbers) for _ in range(8)])
        await index_everything(store)
        assert await leftovers(database) == (set(), set())
        assert await indexed_or_waiting(database) == 15 * 6 + 8

    on_database(url, use)


def test_a_process_that_took_too_long_does_no_harm(url, monkeypatch):
    """Its turn went to another one; what it built is dropped, and what the other one built stays."""
    monkeypatch.setattr(indexing, "BUSY_MS", -1)
    real = indexing._upload
    slow = [True]

    async def use(store, database):
        await write(store, range(8))

        async def upload(*given):
            await real(*given)
            if slow.pop() if slow else False:
                await index_everything(store)

        monkeypatch.setattr(indexing, "_upload", upload)
        await indexing.index(store, database, PROJECT, look_for_gone=False)
        listing = await sightings.listing_of(database, PROJECT)
        assert sum(segment.pages for segment in listing.segments.values()) == 8
        assert await leftovers(database) == (set(), set())
        assert len(await store.sightings(PROJECT, POOL[0], limit=100)) == 8

    on_database(url, use)


def test_while_one_process_builds_others_let_it(url):
    """Only one at a time; what it leaves when it dies is another's after a while."""

    async def use(store, database):
        await write(store, range(8))
        listing = await sightings.listing_of(database, PROJECT)
        assert await indexing._begin(database, PROJECT, listing, ObjectId())
        assert not await indexing._begin(database, PROJECT, listing, ObjectId())
        assert not await store.index_candidates(PROJECT)
        await database[sightings.INDEX].update_one({"_id": PROJECT}, {"$set": {"busy_until": 1}})
        assert await store.index_candidates(PROJECT)

    on_database(url, use)


def test_the_index_goes_with_what_it_is_about(url, monkeypatch):
    """Segments go once retention has removed all of their pages, but not while a page of theirs may be on its way."""

    async def use(store, database):
        await write(store, range(COUNT))
        await index_everything(store)
        before = await sightings.listing_of(database, PROJECT)
        await store.remove_candidates(PROJECT, before=T0 + COUNT - 2, limit=1000)
        assert not await indexing.index(store, database, PROJECT, look_for_gone=True)
        monkeypatch.setattr(indexing, "SETTLED_AFTER_MS", -10_000)
        while await indexing.index(store, database, PROJECT, look_for_gone=True):
            pass
        after = await sightings.listing_of(database, PROJECT)
        assert 0 < len(after.ids) < len(before.ids)
        assert len(await store.sightings(PROJECT, POOL[0], limit=100)) == 2
        await store.remove_runs(PROJECT, before=None, limit=1000)
        while await indexing.index(store, database, PROJECT, look_for_gone=True):
            pass
        assert (await sightings.listing_of(database, PROJECT)).ids == []
        assert await leftovers(database) == (set(), set())

    on_database(url, use)


def test_no_page_is_there_that_was_not_noted(url, monkeypatch):
    """Where noting fails nothing of the batch's pages is written: a page that nobody noted would never be found."""

    async def fails(*_):
        raise DiedError

    async def use(store, database):
        with monkeypatch.context() as patch:
            patch.setattr(sightings, "note", fails)
            with pytest.raises(DiedError):
                await write(store, [1])
        assert await database["pages"].count_documents({}) == 0
        await write(store, [1])
        assert len(await store.sightings(PROJECT, POOL[0], limit=9)) == 1

    on_database(url, use)
