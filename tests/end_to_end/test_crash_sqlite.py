"""The service on the embedded store is killed in the middle of writing, again and again."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request

import msgspec
import pytest

from tests.service import start_service
from xray.ids import new_id
from xray_server.stores.sqlite import SqliteStore
from xray_server.stores.sqlite.rows import metric_rows
from xray_server.testing_data import PROJECT, documents

KILLS = 20
WRITERS = 3
STAGES_PER_BATCH = 1, 1, 1, 5
"""By turns small batches and ones that another process prepares."""

CANDIDATES = 300
"""More than a page."""


def batch(stage_count):
    """A run with stages whose candidates all come with them, and the ids of the stages."""
    run = {"id": new_id(), "key": str(stage_count), "label": "crashing", "started_at": 1_793_491_200_000}
    stages = [
        {
            "type": "stage", "id": new_id(), "run": run, "name": "filter", "stage_type": "filtering", "order": order,
            "started_at": 1_793_491_200_000,
            "capture": {"mode": "full", "seen": CANDIDATES, "kept": CANDIDATES},
            "columns": {
                "candidate_id": [f"c{n}" for n in range(CANDIDATES)],
                "verdict": ["failed" if n % 3 else "passed" for n in range(CANDIDATES)],
                "data": [{"n": n, "title": f"A title of some length {n * order}"} for n in range(CANDIDATES)],
            },
        }
        for order in range(stage_count)
    ]  # fmt: skip
    return run["id"], [stage["id"] for stage in stages], {"events": stages}


def write_until_it_dies(url, stage_count, acknowledged):
    """Send batches and note those that were acknowledged, until the service does not answer."""
    while True:
        run_id, stage_ids, body = batch(stage_count)
        request = urllib.request.Request(
            f"{url}/v1/ingest", msgspec.msgpack.encode(body), {"Content-Type": "application/msgpack"}
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                assert response.status == 200
        except OSError:
            return
        acknowledged[run_id] = stage_ids


@pytest.mark.skipif(sys.platform == "win32", reason="kills with a POSIX signal")
def test_a_service_that_is_killed_while_it_writes_loses_nothing_it_acknowledged(tmp_path):
    """After each kill -9 every acknowledged batch is there, whole, and none is there in part."""
    file = tmp_path / "xray.sqlite3"
    acknowledged: dict[str, list[str]] = {}
    for number in range(KILLS):
        before = len(acknowledged)
        stage_count = STAGES_PER_BATCH[number % len(STAGES_PER_BATCH)]
        with start_service(tmp_path, XRAY_SERVER_INGEST_PROCESSES="1") as service:
            writers = [
                threading.Thread(target=write_until_it_dies, args=(service.url, stage_count, acknowledged))
                for _ in range(WRITERS)
            ]
            for writer in writers:
                writer.start()
            deadline = time.monotonic() + 20
            while len(acknowledged) == before and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(0.013 * (number % 5))  # somewhere else in a write each time
            os.kill(service.process.pid, signal.SIGKILL)
            for writer in writers:
                writer.join(30)
                assert not writer.is_alive()
        assert len(acknowledged) > before
        connection = sqlite3.connect(file)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()
    asyncio.run(_holds(file, acknowledged))


async def _holds(file, acknowledged):
    store = SqliteStore(file)
    await store.open()
    try:
        runs, stages = await documents(store, "runs"), await documents(store, "stages")
        assert set(acknowledged) <= set(runs)
        assert {stage_id for ids in acknowledged.values() for stage_id in ids} <= set(stages)
        by_run: dict[str, int] = {}
        for stage in stages.values():
            by_run[stage["run_id"]] = by_run.get(stage["run_id"], 0) + 1
            pages = [page async for page in store.pages(PROJECT, stage["id"])]
            assert [seq for page in pages for seq in page.seqs] == list(range(CANDIDATES))
            assert stage["metrics_over"] == stage["metrics"]["input_count"] == CANDIDATES
            assert stage["pipeline"]["label"] == "crashing"
        assert by_run == {run_id: int(run["key"]) for run_id, run in runs.items()}
        connection = sqlite3.connect(file)
        expected = sum(len(list(metric_rows(stage["metrics"]))) for stage in stages.values())
        assert connection.execute("SELECT count(*) FROM stage_metrics").fetchone() == (expected,)
        assert connection.execute("SELECT count(*) FROM pages").fetchone() == (2 * len(stages),)
        connection.close()
    finally:
        await store.close()


WRITES_UNTIL_FULL = """
import asyncio, random, resource, sys
from xray.exceptions import StoreError
from xray.ids import new_id
from xray_server.stores.base import WriteBatch
from xray_server.stores.sqlite import SqliteStore
from xray_server.testing_data import documents

async def write(store, written):
    run_id = new_id()
    await store.write("default", WriteBatch(runs={run_id: {"id": run_id, "input": random.randbytes(2000).hex()}}))
    written.add(run_id)

async def main():
    store, written = SqliteStore(sys.argv[1]), set()
    await store.open()
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), hard))
    failed = 0
    for _ in range(2000):
        try:
            await asyncio.gather(*(write(store, written) for _ in range(3)))
        except StoreError:
            failed += 1
            if failed == 5:
                break
    assert failed == 5, failed
    assert await documents(store, "runs")
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    before = len(written)
    for _ in range(5):
        await write(store, written)
    found = await documents(store, "runs")
    assert written <= set(found), len(written - set(found))
    await store.close()
    print(before, *sorted(written))

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits the length of files as POSIX does")
def test_a_full_disk_costs_nothing_that_was_acknowledged(tmp_path):
    """Where the files cannot grow, writes fail with StoreError and reads go on; with space again so do writes."""
    file = tmp_path / "xray.sqlite3"
    child = subprocess.run(
        [sys.executable, "-c", WRITES_UNTIL_FULL, str(file), str(600_000)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    before, *written = child.stdout.split()
    assert 0 < int(before) < len(written)
    connection = sqlite3.connect(file)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("SELECT count(*) FROM runs").fetchone()[0] >= len(written)
    connection.close()
