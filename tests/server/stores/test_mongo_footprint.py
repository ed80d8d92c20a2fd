"""What a MongoDB store says that it takes, on a server that frees what was removed only later."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pymongo import MongoClient

from tests.mongodb import Databases
from xray_server.conformance.upkeep import old_batch
from xray_server.stores.mongo import MongoStore
from xray_server.testing_data import PROJECT

RUNS = 2000


@pytest.fixture
def url(databases: Databases, tmp_path: Any) -> str:
    return databases.url(tmp_path)


def test_what_is_removed_is_not_in_use_from_then_on(url: str):
    """Neither here nor in a process that begins now, though the files are as large as before."""

    async def use() -> None:
        store = MongoStore(url)
        await store.open()
        for start in range(0, RUNS, 200):
            await store.write(PROJECT, old_batch(tuple(range(start, start + 200)), columns=60))
        full = await store.usage()
        assert full.held_bytes is not None
        assert full.size_bytes == pytest.approx(full.held_bytes, rel=0.1)
        before = full
        for _ in range(3):
            await store.remove_runs(PROJECT, before=None, limit=RUNS // 4)
            after = await store.usage()
            assert after.size_bytes < before.size_bytes - 0.15 * full.size_bytes
            before = after
        assert after.held_bytes is not None
        assert after.held_bytes > 0.8 * full.held_bytes
        assert (after.run_count, after.stage_count, after.page_count) == (RUNS // 4,) * 3
        assert after.size_bytes > 0.15 * full.size_bytes
        await store.close()
        other = MongoStore(url)
        await other.open()
        with MongoClient[Any](url) as client:
            overhead = client.get_default_database()["form"].find_one({"_id": "overhead"})
        if overhead is not None:  # a server that says what is free needs none
            assert (await other.usage()).size_bytes < 0.5 * full.size_bytes
        await other.close()

    asyncio.run(use())


def test_removed_candidates_are_not_in_use_from_then_on(url: str):
    """Those in their stages' documents, and those in a collection of their own."""

    async def use(columns: int, count: int) -> None:
        store = MongoStore(url)
        await store.open()
        await store.write(PROJECT, old_batch(tuple(range(count)), columns=columns))
        full = await store.usage()
        while (await store.remove_candidates(PROJECT, before=None, limit=100)).pages:
            pass
        after = await store.usage()
        assert after.size_bytes < 0.9 * full.size_bytes
        assert (after.stage_count, after.page_count) == (full.stage_count, 0)
        await store.remove_runs(PROJECT, before=None, limit=count)
        assert (await store.usage()).size_bytes < after.size_bytes  # the index over their ids is there yet
        await store.close()

    asyncio.run(use(20, 1000))
    asyncio.run(use(20_000, 20))


def test_what_was_written_lately_is_said(url: str):
    """Also what has been removed again since, for that may have to be written over it."""

    async def use() -> None:
        store = MongoStore(url)
        await store.open()
        assert (await store.usage()).lately_bytes == 0
        await store.write(PROJECT, old_batch(tuple(range(1000)), columns=60))
        full = await store.usage()
        written = full.lately_bytes
        assert written == pytest.approx(full.size_bytes, rel=0.3)
        await store.remove_runs(PROJECT, before=None, limit=500)
        assert (await store.usage()).lately_bytes == pytest.approx(written, rel=0.2)
        await store.write(PROJECT, old_batch(tuple(range(1000, 2000)), columns=60))
        assert (await store.usage()).lately_bytes > 1.5 * written
        await store.close()

    asyncio.run(use())
