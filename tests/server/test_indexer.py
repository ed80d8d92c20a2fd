"""The background task that keeps the index over candidate ids compact."""

from __future__ import annotations

import asyncio

import pytest

from xray_server.conformance.sightings import POOL, T0, columns_of, stage_of
from xray_server.daemons import daemon
from xray_server.daemons.indexer import BUSY_S, IDLE_S, STEPS_PER_TICK, Indexer
from xray_server.pages import paginate
from xray_server.sightings import segments
from xray_server.stores.base import WriteBatch
from xray_server.stores.sqlite import SqliteStore
from xray_server.testing_data import PROJECT


@pytest.fixture(autouse=True)
def small_segments(monkeypatch):
    for name, value in (("PAGES_PER_SEGMENT", 2), ("ENTRIES_PER_SEGMENT", 6), ("PAGES_AT_ONCE", 2)):
        monkeypatch.setattr(segments, name, value)


async def write(store, project, numbers):
    for number in numbers:
        stage = stage_of(number, run=number, label="shop", start=T0 + number)
        run = {"id": stage["run_id"], "started_at": T0 + number}
        pages = paginate(stage["run_id"], stage["id"], T0 + number, columns_of(POOL[:3]))
        await store.write(project, WriteBatch(runs={run["id"]: run}, stages={stage["id"]: stage}, pages=pages))


async def left(store):
    rows = await store._rows(
        "SELECT (SELECT count(*) FROM sighting_tail), (SELECT count(*) FROM sighting_segments)", ()
    )
    return rows[0]


def test_it_indexes_all_projects_in_bounded_steps(tmp_path):
    """While there is more to do it comes back soon; what a project that is gone has left goes too."""

    async def use():
        store = SqliteStore(tmp_path / "xray.sqlite3")
        await store.open()
        try:
            await write(store, PROJECT, range(3 * STEPS_PER_TICK))
            await write(store, "other", range(100, 104))
            indexer = Indexer(store)
            assert await indexer.tick() == BUSY_S
            assert (await left(store))[0] == 3 * STEPS_PER_TICK - 2 * STEPS_PER_TICK
            while await indexer.tick() == BUSY_S:
                pass
            waiting, kept = await left(store)
            assert waiting == 0
            assert 0 < kept < STEPS_PER_TICK
            assert indexer.state()["steps"] > STEPS_PER_TICK
            assert indexer.state()["errors"] == 0
            for project in (PROJECT, "other"):
                await store.remove_runs(project, before=None, limit=1000)
            assert await store.projects() == []
            assert await indexer.tick() == IDLE_S
            assert await left(store) == (0, 0)
        finally:
            await store.close()

    asyncio.run(use())


def test_a_task_that_misses_its_end_is_told_again(monkeypatch):
    """A driver may swallow a cancellation: leaving the block ends the task all the same."""
    monkeypatch.setattr(daemon, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(daemon, "CANCEL_AGAIN_S", 0.0)

    class Deaf(daemon.Daemon):
        name = "deaf"
        told = 0

        async def tick(self):
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                self.told += 1
                if self.told == 3:
                    raise
            return 0.0

    async def use():
        deaf = Deaf()
        async with daemon.running([deaf]):
            await asyncio.sleep(0.01)
        return deaf.told

    assert asyncio.run(asyncio.wait_for(use(), 20)) == 3
