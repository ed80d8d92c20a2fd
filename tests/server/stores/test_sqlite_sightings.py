"""The index over candidate ids in the SQLite file: crashes, two processes, retention, and files of an older form."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys

import pytest

from xray_server.conformance.sightings import (
    POOL,
    T0,
    columns_of,
    everything,
    expected,
    index_everything,
    stage_of,
)
from xray_server.conformance.suite import with_open
from xray_server.pages import paginate
from xray_server.sightings import segments
from xray_server.sightings.entries import id_hash
from xray_server.stores.base import WriteBatch
from xray_server.stores.sqlite import SqliteStore, sightings
from xray_server.stores.sqlite.schema import MIGRATIONS
from xray_server.testing_data import PROJECT

TABLES = ("sighting_tail", "sighting_segments", "sighting_parts", "sighting_blocks", "sighting_backlogs")

WRITES_AND_INDEXES_UNTIL_KILLED = """
import asyncio, itertools, sys
from xray.ids import new_id
from xray_server.conformance.sightings import T0, columns_of, stage_of
from xray_server.pages import paginate
from xray_server.sightings import segments
from xray_server.stores.base import WriteBatch
from xray_server.stores.sqlite import SqliteStore

segments.PAGES_PER_SEGMENT, segments.ENTRIES_PER_SEGMENT, segments.FAN_OUT = 4, 12, 2
segments.PAGES_AT_ONCE, segments.ENTRIES_AT_ONCE = 8, 24

async def write(store, numbers):
    for number in numbers:
        stage = stage_of(number, run=number, label="shop", start=T0 + number) | {"id": new_id()}
        pages = paginate(stage["run_id"], stage["id"], T0 + number, columns_of(["wanted", f"own {number}"]))
        await store.write("default", WriteBatch(stages={stage["id"]: stage}, pages=pages))
        print(stage["id"], flush=True)

async def index(store):
    while True:
        await store.index_candidates("default")
        await asyncio.sleep(0)

async def main():
    store = SqliteStore(sys.argv[1])
    await store.open()
    numbers = itertools.count()
    await asyncio.gather(write(store, numbers), write(store, numbers), index(store))

asyncio.run(main())
"""


def on_file(file, use):
    """Use an open store on a file."""
    return asyncio.run(with_open(SqliteStore(file), use))


def batch_of(numbers, ids, *, start=T0):
    batch = WriteBatch()
    for number in numbers:
        stage = stage_of(number, run=number, label="shop", start=start + number)
        batch.runs[stage["run_id"]] = {"id": stage["run_id"], "started_at": start + number, "status": "success"}
        batch.stages[stage["id"]] = stage
        batch.pages += paginate(stage["run_id"], stage["id"], start + number, columns_of(ids))
    return batch


def counts(file):
    """How many rows each table of the index has."""
    connection = sqlite3.connect(file)
    try:
        return {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES}
    finally:
        connection.close()


@pytest.fixture
def small_segments(monkeypatch):
    for name, value in (
        ("PAGES_PER_SEGMENT", 4), ("ENTRIES_PER_SEGMENT", 12), ("PAGES_AT_ONCE", 8), ("ENTRIES_AT_ONCE", 24),
        ("FAN_OUT", 2),
    ):  # fmt: skip
        monkeypatch.setattr(segments, name, value)


@pytest.mark.skipif(sys.platform == "win32", reason="kills with a POSIX signal")
def test_what_was_acknowledged_is_found_after_a_kill(tmp_path):
    """Wherever in writing, indexing or merging the process was killed."""
    file = tmp_path / "xray.sqlite3"
    durable = []
    for number in range(8):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITES_AND_INDEXES_UNTIL_KILLED, str(file)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        durable += [child.stdout.readline().strip() for _ in range(30 + 7 * number)]
        os.kill(child.pid, signal.SIGKILL)
        durable += [line.strip() for line in child.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        child.stdout.close()
        child.wait()

    async def use(store):
        found = await store.sightings(PROJECT, "wanted", limit=100_000)
        assert set(durable) <= {one.page.stage_id for one in found}
        assert found == expected(await everything(store, PROJECT), "wanted", {})

    on_file(file, use)
    assert counts(file)["sighting_segments"] > 0


@pytest.mark.usefixtures("small_segments")
def test_of_two_processes_that_do_the_same_one_does_it(tmp_path):
    """A step whose records or segments somebody else has taken changes nothing: nothing is indexed twice."""
    file = tmp_path / "xray.sqlite3"

    async def use(store):
        for number in range(0, 40, 4):
            await store.write(PROJECT, batch_of(range(number, number + 4), POOL[:3]))
        steps = 0
        while True:
            plans = [
                await store._read(lambda c: sightings.plan(c, store._local.decompressor, PROJECT)) for _ in range(2)
            ]
            if plans[0] is None:
                break
            for plan in plans:
                built = plan.build()
                await store._change(lambda c, plan=plan, built=built: sightings.install(c, plan, built))
            steps += 1
            pages, entries = (await store._rows("SELECT sum(pages), sum(entries) FROM sighting_segments", ()))[0]
            waiting = (await store._rows("SELECT ifnull(sum(pages), 0) FROM sighting_tail", ()))[0][0]
            assert (pages + waiting, entries) == (40, 3 * pages)
        assert steps > 2

    on_file(file, use)


@pytest.mark.usefixtures("small_segments")
def test_the_index_goes_with_what_it_is_about(tmp_path):
    """Once retention has removed all pages of a segment the segment goes; pages without a start keep theirs."""
    file = tmp_path / "xray.sqlite3"

    async def use(store):
        for number in range(0, 80, 4):
            await store.write(PROJECT, batch_of(range(number, number + 4), POOL[:3]))
            await index_everything(store)
        before = counts(file)
        await store.remove_candidates(PROJECT, before=T0 + 70, limit=1000)
        await index_everything(store)
        after = counts(file)
        assert 0 < after["sighting_parts"] < before["sighting_parts"]
        assert len(await store.sightings(PROJECT, POOL[0], limit=1000)) == 10
        await store.remove_runs(PROJECT, before=None, limit=1000)
        await index_everything(store)
        assert counts(file) == dict.fromkeys(TABLES, 0)

    on_file(file, use)


@pytest.mark.usefixtures("small_segments")
def test_a_segment_with_a_page_without_a_start_stays(tmp_path):
    """The known starts in it may all be past; the page is there."""

    async def use(store):
        await store.write(PROJECT, batch_of(range(3), POOL[:3]))
        await store.remove_candidates(PROJECT, before=None, limit=1)
        stage = stage_of(50, run=50, label=None, start=None)
        pages = paginate(stage["run_id"], stage["id"], None, columns_of(["timeless", *POOL[:12]]))
        await store.write(PROJECT, WriteBatch(stages={stage["id"]: stage}, pages=pages))
        await index_everything(store)
        # Only what has a start goes now; of what has none the first would.
        connection = sqlite3.connect(tmp_path / "xray.sqlite3")
        connection.execute("DELETE FROM pages WHERE started_at IS NOT NULL")
        connection.commit()
        connection.close()
        await store.write(PROJECT, batch_of(range(60, 62), POOL[:3]))
        await index_everything(store)
        assert counts(tmp_path / "xray.sqlite3")["sighting_segments"] > 0
        assert len(await store.sightings(PROJECT, "timeless", limit=9)) == 1

    on_file(tmp_path / "xray.sqlite3", use)


def test_candidates_of_an_older_file_are_found_and_indexed(tmp_path, monkeypatch):
    """A file from before the index has a backlog: found by its marks until it is indexed, and then no more."""
    file = tmp_path / "xray.sqlite3"

    async def write(store):
        await store.write(PROJECT, batch_of(range(30), POOL[:3]))
        await store.write("other", batch_of(range(5), POOL[:2]))

    on_file(file, write)
    connection = sqlite3.connect(file)
    for table in (*TABLES, "half_days", "dirty_half_days"):
        connection.execute(f"DROP TABLE {table}")
    connection.execute(f"PRAGMA user_version = {_form_without_index()}")
    connection.commit()
    connection.close()
    monkeypatch.setattr(sightings, "BACKLOG_PAGES_AT_ONCE", 7)

    async def use(store):
        await store.write(PROJECT, batch_of(range(30, 40), POOL[:3]))
        for step in range(100):
            for project, candidate_id in ((PROJECT, POOL[0]), (PROJECT, POOL[5]), ("other", POOL[1])):
                wanted = expected(await everything(store, project), candidate_id, {})
                assert await store.sightings(project, candidate_id, limit=1000) == wanted, step
            if True not in [await store.index_candidates(project) for project in (PROJECT, "other")]:
                break
        assert step == 5

    on_file(file, use)
    assert counts(file)["sighting_backlogs"] == 0
    assert counts(file)["sighting_segments"] == 6


def _form_without_index():
    return next(number for number, statements in enumerate(MIGRATIONS) if "sighting_tail" in statements)


def test_ids_that_share_a_hash_are_told_apart(tmp_path):
    """The hash says perhaps, the page says yes."""
    known: dict[int, str] = {}
    for number in range(100_000):
        candidate_id = f"x{number}"
        twin = known.setdefault(id_hash(candidate_id), candidate_id)
        if twin != candidate_id:
            break
    else:
        raise AssertionError("No two ids share a hash.")

    async def use(store):
        await store.write(PROJECT, batch_of([1], [twin]))
        await store.write(PROJECT, batch_of([2], [candidate_id]))
        first, second = [await store.sightings(PROJECT, one, limit=9) for one in (twin, candidate_id)]
        assert ([one.at for one in first], [one.at for one in second]) == ([T0 + 1], [T0 + 2])

    on_file(tmp_path / "xray.sqlite3", use)
