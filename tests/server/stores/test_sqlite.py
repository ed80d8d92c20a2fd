"""The SQLite store: the contract of all stores, and what is its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from xray.exceptions import StoreError
from xray.ids import new_id
from xray_server.conformance.rollups import NOON, a_bucket, a_stage, batch_of
from xray_server.conformance.suite import with_open
from xray_server.conformance.upkeep import old_batch
from xray_server.half_days import half_day_of
from xray_server.pages import PAGE_SIZE
from xray_server.query.ast import Compare, Metric, Scan
from xray_server.query.ast import Test as Condition
from xray_server.rollups import HOUR_MS, read_half_days, refresh
from xray_server.stores.base import Bucket, Store, WriteBatch, Written
from xray_server.stores.sqlite import SqliteStore
from xray_server.stores.sqlite.rows import RUNS, STAGES
from xray_server.stores.sqlite.schema import MIGRATIONS, migrate
from xray_server.testing import StoreContract
from xray_server.testing_data import PROJECT, documents, ids, sample_batch, sample_runs

WRITES_UNTIL_KILLED = """
import asyncio, sys
from xray.ids import new_id
from xray_server.stores.base import WriteBatch
from xray_server.stores.sqlite import SqliteStore

async def write(store):
    while True:
        run_id = new_id()
        await store.write("default", WriteBatch(runs={run_id: {"id": run_id, "input": "x" * 2000}}))
        print(run_id, flush=True)

async def main():
    store = SqliteStore(sys.argv[1])
    await store.open()
    await asyncio.gather(*(write(store) for _ in range(8)))

asyncio.run(main())
"""


class TestSqliteStore(StoreContract):
    async def make_store(self, place: Path) -> Store:
        return SqliteStore(place / "xray.sqlite3")


def test_a_killed_writer_leaves_every_acknowledged_batch(tmp_path):
    """After kill -9 in the middle of writing, every batch whose write had returned is there."""
    file = tmp_path / "xray.sqlite3"
    child = subprocess.Popen([sys.executable, "-c", WRITES_UNTIL_KILLED, str(file)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    acknowledged = [child.stdout.readline().strip() for _ in range(60)]
    os.kill(child.pid, signal.SIGKILL)
    acknowledged += [line.strip() for line in child.stdout if line.endswith("\n")]
    child.wait()
    child.stdout.close()
    with_store(file, lambda store: _holds(store, acknowledged))


async def _holds(store, run_ids):
    found = await documents(store, "runs")
    assert set(run_ids) <= set(found)
    assert all(run["input"] == "x" * 2000 for run in found.values())


def test_a_newer_form_is_refused(tmp_path):
    """A file of a newer version of X-Ray is not opened, and not changed."""
    file = tmp_path / "xray.sqlite3"
    with_store(file, lambda store: store.write(PROJECT, sample_batch()))
    set_version(file, len(MIGRATIONS) + 1)
    with pytest.raises(StoreError) as caught:
        asyncio.run(SqliteStore(file).open())
    assert caught.value.code == "newer_store"
    set_version(file, len(MIGRATIONS))
    assert with_store(file, lambda store: documents(store, "runs")) == sample_runs()


def test_a_file_of_something_else_is_refused(tmp_path):
    """A SQLite file with other tables, and a file that is no SQLite file, are not taken."""
    file = tmp_path / "other.sqlite3"
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(StoreError, match="not X-Ray's"):
        asyncio.run(SqliteStore(file).open())
    (tmp_path / "text").write_text("no database at all, but long enough to be looked at\n" * 50)
    with pytest.raises(StoreError):
        asyncio.run(SqliteStore(tmp_path / "text").open())


def test_a_form_from_before_the_first_release_is_named_and_left_alone(tmp_path):
    """Such a file has a version, but not the tables that versions begin with."""
    file = tmp_path / "early.sqlite3"
    connection = sqlite3.connect(file)
    connection.executescript("CREATE TABLE runs (id TEXT); INSERT INTO runs VALUES ('x'); PRAGMA user_version = 1;")
    connection.close()
    with pytest.raises(StoreError, match="before its first release") as caught:
        asyncio.run(SqliteStore(file).open())
    assert caught.value.code == "older_store"
    with contextlib.closing(sqlite3.connect(file)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_schema").fetchall()
        assert (tables, connection.execute("SELECT * FROM runs").fetchall()) == ([("runs",)], [("x",)])


def test_the_tables_have_a_column_for_every_field(tmp_path):
    """The published fields and the columns of the tables are the same."""
    connection = sqlite3.connect(tmp_path / "xray.sqlite3", isolation_level=None)
    migrate(connection)
    for table in (RUNS, STAGES):
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table.name})")]
        assert set(columns) == {"row", "project", *table.stored}
        assert set(table.kinds) == {*table.stored, *table.rest} - {"rest"}
    connection.close()


def test_readers_do_not_wait_for_a_writer(tmp_path):
    """While another connection holds the write lock, reads are answered from the state before."""
    file = tmp_path / "xray.sqlite3"

    async def use(store):
        await store.write(PROJECT, sample_batch())
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE runs SET label = 'changed'")
        reads = await asyncio.gather(documents(store, "runs"), documents(store, "runs"))
        assert reads == [sample_runs(), sample_runs()]
        other.execute("ROLLBACK")
        other.close()

    with_store(file, use)


def test_a_bad_batch_fails_alone(tmp_path):
    """Of batches that share a transaction, only the one that cannot be written is refused."""

    async def use(store):
        good = [new_id() for _ in range(20)]
        batches = [WriteBatch(runs={run_id: {"id": run_id, "label": "good"}}) for run_id in good]
        bad = WriteBatch(runs={"bad": {"id": "bad", "no_such_field": 1}})
        results = await asyncio.gather(
            *(store.write(PROJECT, batch) for batch in [*batches[:10], bad, *batches[10:]]), return_exceptions=True
        )
        assert [type(result) for result in results] == [Written] * 10 + [StoreError] + [Written] * 10
        assert set(await documents(store, "runs")) == set(good)

    with_store(tmp_path / "xray.sqlite3", use)


def test_a_failed_batch_leaves_nothing(tmp_path):
    """What a batch wrote before it failed is undone, the names of its metrics included."""

    async def use(store):
        stages = {"s": {"id": "s", "run_id": "r", "metrics": {"fresh": 1}}, "t": {"id": "t", "run_id": "r", "odd": 1}}
        with pytest.raises(StoreError):
            await store.write(PROJECT, WriteBatch(stages=stages))
        del stages["t"]
        await store.write(PROJECT, WriteBatch(stages=stages))
        fresh = Scan("stages", stage=Condition(Metric("fresh"), Compare("eq", 1)))
        assert ids(await store.scan(PROJECT, fresh)) == ["s"]

    with_store(tmp_path / "xray.sqlite3", use)


def test_a_file_of_the_first_form_gets_its_rollups(tmp_path):
    """What was written before there were rollups is marked for them, and nothing of it is lost."""
    file = tmp_path / "xray.sqlite3"
    connection = sqlite3.connect(file, isolation_level=None)
    connection.executescript(MIGRATIONS[0])
    connection.execute("PRAGMA user_version = 1")
    words = [(1, "default"), (2, "filter"), (3, "filtering"), (4, "a")]
    connection.executemany("INSERT INTO words VALUES (?, ?)", words)
    for number, (label, start) in enumerate([(4, NOON + 5), (None, NOON + 6), (4, -1), (4, None)]):
        connection.execute(
            "INSERT INTO stages (project, id, run_id, name, type, started_at, pipeline_label, rest)"
            " VALUES (1, ?, 'r', 2, 3, ?, ?, '{\"metrics\":{\"failed\":2}}')",
            (f"s{number}", start, label),
        )
    connection.close()

    async def use(store):
        marked = {bucket for bucket, _ in await store.dirty_buckets(PROJECT, limit=10)}
        assert marked == {a_bucket(version=None, label="a"), a_bucket(version=None, label=None),
                          Bucket("a", "filter", "filtering", None, -HOUR_MS)}  # fmt: skip
        assert await refresh(store, PROJECT, until=NOON + HOUR_MS) == 3
        assert len(await documents(store, "stages")) == 4
        giving_back = next(finding for finding in await store.check() if finding.what == "giving space back")
        assert not giving_back.ok
        assert "VACUUM" in giving_back.hint

    with_store(file, use)


def test_a_file_from_before_half_days_has_them_marked(tmp_path):
    """Hours that were kept before there were half days are found, and summed up."""
    file = tmp_path / "xray.sqlite3"

    async def write(store):
        await store.write(PROJECT, batch_of(*(a_stage(hour, hour=hour) for hour in (-30, 0, 1))))
        await refresh(store, PROJECT, until=NOON + 9 * HOUR_MS)

    with_store(file, write)
    connection = sqlite3.connect(file)
    for table in ("half_days", "dirty_half_days"):
        connection.execute(f"DROP TABLE {table}")
    connection.execute(f"PRAGMA user_version = {next(n for n, sql in enumerate(MIGRATIONS) if 'half_days' in sql)}")
    connection.close()

    async def use(store):
        marked = {bucket for bucket, _ in await store.dirty_half_days(PROJECT, limit=10, until=NOON + 9 * HOUR_MS)}
        assert marked == {half_day_of(a_bucket(hour)) for hour in (-30, 0)}
        assert sum(each.stage_count for each in await read_half_days(store, PROJECT, since=0, until=2 * NOON)) == 3

    with_store(file, use)


def test_a_new_file_becomes_smaller_when_data_goes(tmp_path):
    """What removal frees is given back to the file system, the log too."""
    file = tmp_path / "xray.sqlite3"

    async def use(store):
        await store.write(PROJECT, old_batch(columns=40 * PAGE_SIZE))
        await store.reclaim()
        large = sum(path.stat().st_size for path in tmp_path.iterdir())
        await store.remove_runs(PROJECT, before=None, limit=100)
        await store.reclaim()
        small = sum(path.stat().st_size for path in tmp_path.iterdir())
        assert small < large / 2
        assert (await store.usage()).size_bytes <= small

    with_store(file, use)


def test_two_processes_write_the_same_file(tmp_path):
    """While another process writes without a pause, every write has its turn, and nothing is lost."""
    file = tmp_path / "xray.sqlite3"
    with_store(file, lambda store: store.write(PROJECT, WriteBatch()))
    child = subprocess.Popen([sys.executable, "-c", WRITES_UNTIL_KILLED, str(file)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        child.stdout.readline()

        async def use(store):
            for number in range(20):
                await store.write(PROJECT, old_batch((number,)))
                await store.remove_candidates(PROJECT, before=None, limit=1)
            assert {stage["id"] for stage in old_batch(tuple(range(20))).stages.values()} <= set(
                await documents(store, "stages")
            )

        with_store(file, use)
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


# --- helpers ----------------------------------------------------------------------------------------------------


def with_store(file, use):
    return asyncio.run(with_open(SqliteStore(file), use))


def set_version(file, version):
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
