"""Compression with dictionaries: nothing is lost by it, whoever reads and whatever goes wrong."""

from __future__ import annotations

import asyncio
import random
import sqlite3

import pytest

from xray.exceptions import StoreError
from xray.ids import new_id
from xray.stage_types.base import Columns
from xray_server.pages import paginate
from xray_server.stores.base import WriteBatch
from xray_server.stores.sqlite import SqliteStore
from xray_server.stores.sqlite.dictionaries import MAX_SAMPLES
from xray_server.testing_data import PROJECT, documents

WORDS = [
    "granite",
    "walnut",
    "copper",
    "marble",
    "linen",
    "bamboo",
    "cotton",
    "leather",
    "ceramic",
    "titanium",
    "canvas",
    "carbon",
]


def batch_of(count, draw, name="filter"):
    """Stages of one name with a few candidates each, and these candidates by stage."""
    batch, rows = WriteBatch(), {}
    run_id = new_id()
    batch.runs[run_id] = {"id": run_id, "label": "shop"}
    for _ in range(count):
        stage_id = new_id()
        pipeline = {"id": run_id, "label": "shop"}
        capture = {"mode": "full", "seen": 12, "kept": 12, "markers": [], "reason": draw.choice(WORDS)}
        batch.stages[stage_id] = {
            "id": stage_id, "run_id": run_id, "name": name, "pipeline": pipeline, "capture": capture,
            "output": {"words": [draw.choice(WORDS) for _ in range(20)]},
        }  # fmt: skip
        titles = [" ".join(draw.choices(WORDS, k=6)) for _ in range(12)]
        columns = Columns([f"c{n}" for n in range(12)], {"data": [{"title": title} for title in titles]})
        batch.pages += paginate(run_id, stage_id, 1, columns)
        rows[stage_id] = list(columns.rows())
    return batch, rows


async def candidates_of(store, stage_ids):
    found = {}
    for stage_id in stage_ids:
        found[stage_id] = [row async for page in store.pages(PROJECT, stage_id) for row in page.columns().rows()]
    return found


async def fill(store, draw, rows, name="filter"):
    """Write until the stages of a name have a dictionary; all that was written, and how large the last pages are."""
    stages = {}
    for _ in range(6):
        batch, written = batch_of(MAX_SAMPLES // 2, draw, name)
        stages |= batch.stages
        rows |= written
        await store.write(PROJECT, batch)
    return stages


def sizes(file):
    connection = sqlite3.connect(file)
    found = [size for (size,) in connection.execute("SELECT length(block) FROM pages ORDER BY row")]
    kinds = [kind for (kind,) in connection.execute("SELECT kind FROM dictionaries")]
    connection.close()
    return found, kinds


def test_stages_of_one_name_share_a_dictionary(tmp_path):
    """After some hundred stages of a name their pages and documents take half; another process reads all of them."""
    file = tmp_path / "xray.sqlite3"
    rows = {}

    async def write():
        store = SqliteStore(file)
        await store.open()
        stages = await fill(store, random.Random(1), rows)
        await store.close()
        return stages

    async def read():
        store = SqliteStore(file)
        await store.open()
        found = await documents(store, "stages"), await candidates_of(store, rows)
        more, written = batch_of(5, random.Random(2))
        await store.write(PROJECT, more)
        assert await candidates_of(store, written) == written
        await store.close()
        return found

    stages = asyncio.run(write())
    assert asyncio.run(read()) == (stages, rows)
    lengths, kinds = sizes(file)
    assert {kind.split("\0")[0] for kind in kinds} == {"page", "stage"}
    assert sum(lengths[-100:]) < 0.7 * sum(lengths[:100])
    assert sum(lengths[-5:]) / 5 < 0.7 * sum(lengths[:100]) / 100  # the process that came later uses it too


def test_a_missing_dictionary_is_said(tmp_path):
    """Where somebody removed a dictionary, what needs it cannot be read, and says so; the rest can."""
    file = tmp_path / "xray.sqlite3"
    rows = {}

    async def use():
        store = SqliteStore(file)
        await store.open()
        await fill(store, random.Random(1), rows)
        await store.close()
        connection = sqlite3.connect(file)
        connection.execute("DELETE FROM dictionaries")
        connection.commit()
        connection.close()
        await store.open()
        first, *_, last = rows
        assert await candidates_of(store, [first]) == {first: rows[first]}
        with pytest.raises(StoreError, match="dictionary 1 "):
            await candidates_of(store, [last])
        await store.close()

    asyncio.run(use())


def test_values_that_are_too_alike_are_written_all_the_same(tmp_path):
    """Where no dictionary can be made, everything is written without one."""
    file = tmp_path / "xray.sqlite3"

    async def use():
        store = SqliteStore(file)
        await store.open()
        columns = Columns(["a"], {"data": [{"x": "y" * 300}]})
        ids = [new_id() for _ in range(MAX_SAMPLES * 2)]
        for some in (ids[:MAX_SAMPLES], ids[MAX_SAMPLES:]):
            pages = [page for stage_id in some for page in paginate(new_id(), stage_id, 1, columns)]
            await store.write(PROJECT, WriteBatch(pages=pages))
        expected = list(columns.rows())
        assert await candidates_of(store, ids) == dict.fromkeys(ids, expected)
        await store.close()

    asyncio.run(use())
