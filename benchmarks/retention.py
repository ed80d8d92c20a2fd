"""Whether a store holds its limit while it is written to at full speed, and what that costs the writers.

Run: ``python benchmarks/retention.py [--seconds 120] [--max-disk 300MB] [--candidates 20] [--mongodb URI] [--json]``.

Writers that never pause write to two stores in turn, one with retention and one without, slice by slice, so that what
the machine does otherwise meets both. The store without retention begins anew when it has reached twice the limit.
What is measured is the wait of one ``write`` of ten stages, and every few milliseconds what the data takes on disk: the
embedded store's files as they are; of a MongoDB, asked twice a second, its files, less what the server says is free in
them (DocumentDB does not say it: there it is the files).
A goal that is missed is said, and fails nothing: ratios on a busy machine are no verdict.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sqlite3
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pymongo
from support.workload import RESULTS

from xray.ids import new_id, now_ms
from xray.stage_types.base import Columns
from xray.wording import size
from xray_server.daemons.daemon import running
from xray_server.daemons.indexer import Indexer
from xray_server.daemons.retention import Policy, Retention
from xray_server.pages import paginate
from xray_server.quantities import parse_size_bytes
from xray_server.stores.base import Store, WriteBatch
from xray_server.stores.mongo import MongoStore
from xray_server.stores.sqlite import SqliteStore

WRITERS = 8
STAGES_PER_WRITE = 10
SLICE_S = 5.0
PROJECT, DATABASE = "default", "xray_benchmark_retention"
GOAL_OVER = 0.10
GOAL_RATIO = 2.0


@dataclass
class Measured:
    """What was measured of one of the stores."""

    waits_ms: list[float] = field(default_factory=list)
    stages: int = 0
    seconds: float = 0.0
    highest: int = 0
    """What the data took at the most."""

    def at(self, share: float) -> float:
        """A quantile of the waits."""
        ordered = sorted(self.waits_ms)
        return ordered[int(share * (len(ordered) - 1))]


def columns_of(count: int) -> Columns:
    """Judged products as the columns that a filtering stage has."""
    rows = list(itertools.islice(itertools.cycle(RESULTS[5000]), count))
    return Columns(
        [row["id"] for row in rows],
        {
            "verdict": ["passed" if row["passed"] else "failed" for row in rows],
            "reason_label": [row["reason"] for row in rows],
            "data": [{name: row[name] for name in ("title", "price", "rating", "category")} for row in rows],
        },
    )


def batch_of(columns: Columns) -> WriteBatch:
    """Ten stages of one run."""
    batch, run_id, start = WriteBatch(), new_id(), now_ms()
    pipeline = {"id": run_id, "label": "benchmark", "version": "1", "started_at": start}
    batch.runs[run_id] = {"id": run_id, "label": "benchmark", "version": "1", "started_at": start, "status": "success"}
    for order in range(STAGES_PER_WRITE):
        stage_id = new_id()
        metrics = {
            "duration_ms": 1.5, "input_count": len(columns), "output_count": 7, "passed": 7, "failed": len(columns) - 7,
            "fail_ratio": 0.65, "label_counts": {"price_too_high": 13}, "label_share": {"price_too_high": 1.0},
        }  # fmt: skip
        batch.stages[stage_id] = {
            "id": stage_id, "run_id": run_id, "pipeline": pipeline, "order": order, "name": f"filter {order}",
            "type": "filtering", "started_at": start, "status": "success", "metrics": metrics, "metrics_over": 20,
            "capture": {"mode": "full", "seen": len(columns), "kept": len(columns)},
        }  # fmt: skip
        batch.pages += paginate(run_id, stage_id, start, columns)
    return batch


class OnSqlite:
    """Embedded stores in a folder."""

    name, watch_every_s = "SQLite", 0.01

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.version = sqlite3.sqlite_version

    async def anew(self, name: str) -> Store:
        """An empty store."""
        for path in self._folder.glob(f"{name}.*"):
            path.unlink()
        store = SqliteStore(self._folder / f"{name}.sqlite3")
        await store.open()
        return store

    async def size(self, store: Store) -> int:
        """The lengths of its files."""
        assert isinstance(store, SqliteStore)
        paths = (store.path.with_name(store.path.name + end) for end in ("", "-wal", "-shm"))
        return sum(path.stat().st_size for path in paths if path.exists())


class OnMongodb:
    """Stores in databases of a server."""

    name, watch_every_s = "MongoDB", 0.5

    def __init__(self, uri: str) -> None:
        self._uri = uri.rstrip("/")
        with pymongo.MongoClient[dict[str, Any]](uri) as client:
            self.version = str(client.server_info()["version"])

    async def anew(self, name: str) -> Store:
        """A store in an empty database."""
        self._drop(name)
        store = MongoStore(f"{self._uri}/{DATABASE}_{name}")
        await store.open()
        return store

    async def size(self, store: Store) -> int:
        """Its files, less what the server says is free in them."""
        usage = await store.usage()
        return usage.size_bytes if usage.held_bytes is None else usage.held_bytes

    def files(self, name: str) -> int:
        """What the files take in the end."""
        with pymongo.MongoClient[dict[str, Any]](self._uri) as client:
            stats = client[f"{DATABASE}_{name}"].command("dbStats")
        return int(stats["storageSize"] + stats["indexSize"])

    def close(self) -> None:
        """Drop the databases."""
        for name in ("with", "without"):
            self._drop(name)

    def _drop(self, name: str) -> None:
        with pymongo.MongoClient[dict[str, Any]](self._uri) as client:
            client.drop_database(f"{DATABASE}_{name}")


Place = OnSqlite | OnMongodb


async def write_for(store: Store, place: Place, measured: Measured, columns: Columns, seconds: float) -> None:
    """Write at full speed for a while."""
    end = time.perf_counter() + seconds

    async def write() -> None:
        while time.perf_counter() < end:
            batch = batch_of(columns)
            began = time.perf_counter()
            await store.write(PROJECT, batch)
            measured.waits_ms.append((time.perf_counter() - began) * 1000)
            measured.stages += STAGES_PER_WRITE

    async def watch() -> None:
        while time.perf_counter() < end:
            measured.highest = max(measured.highest, await place.size(store))
            await asyncio.sleep(place.watch_every_s)

    began = time.perf_counter()
    await asyncio.gather(watch(), *(write() for _ in range(WRITERS)))
    measured.seconds += time.perf_counter() - began


async def run(seconds: float, limit: int, candidates: int, place: Place) -> tuple[Measured, Measured, Retention]:
    """Fill the store with retention up to its limit, then measure both in turn; both are indexed as in the service."""
    columns = columns_of(candidates)
    without, with_ = Measured(), Measured()
    kept = await place.anew("with")
    retention = Retention(kept, Policy(max_disk_bytes=limit))
    async with running([retention, Indexer(kept)]):
        while retention.removed.pages == 0:
            await write_for(kept, place, Measured(), columns, 1.0)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            free = await place.anew("without")
            async with running([Indexer(free)]):
                while time.perf_counter() < end and await place.size(free) <= 2 * limit:
                    await write_for(kept, place, with_, columns, SLICE_S)
                    await write_for(free, place, without, columns, SLICE_S)
            await free.close()
    await kept.close()
    return without, with_, retention


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--max-disk", default="300MB")
    parser.add_argument("--candidates", type=int, default=20, help="Candidates a stage, up to 5,000.")
    parser.add_argument("--mongodb", metavar="URI", help="measure the MongoDB store on this server instead")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    limit = parse_size_bytes(options.max_disk, "--max-disk")
    assert limit is not None
    files = None
    with tempfile.TemporaryDirectory() as folder:
        place = OnSqlite(Path(folder)) if options.mongodb is None else OnMongodb(options.mongodb)
        without, with_, retention = asyncio.run(run(options.seconds, limit, options.candidates, place))
        if isinstance(place, OnMongodb):
            files = place.files("with")
            place.close()
    over = with_.highest / limit - 1
    ratio = with_.at(0.99) / without.at(0.99)
    figures: dict[str, Any] = {
        "store": place.name, "version": place.version, "files_bytes": files,
        "seconds": options.seconds, "limit_bytes": limit,
        "highest_bytes": with_.highest, "over": over, "candidates": options.candidates,
        "pages_removed": retention.removed.pages, "runs_removed": retention.removed.runs,
        "p99_ratio": ratio, "p50_ratio": with_.at(0.5) / without.at(0.5),
    }  # fmt: skip
    for name, measured in (("without", without), ("with", with_)):
        figures[name] = {
            "stages_per_s": measured.stages / measured.seconds,
            "p50_ms": measured.at(0.5),
            "p99_ms": measured.at(0.99),
        }
    if options.json:
        print(json.dumps(figures, indent=2))
        return 0
    print(
        f"{place.name} {place.version}; {WRITERS} writers that never pause, {STAGES_PER_WRITE} stages of "
        f"{options.candidates} candidates a write; {options.seconds:.0f} s, half of them with retention.\n"
    )
    print("| | stages a second | write p50 | write p99 |\n| :--- | ---: | ---: | ---: |")
    for name in ("without", "with"):
        one = figures[name]
        print(f"| {name} retention | {one['stages_per_s']:,.0f} | {one['p50_ms']:.1f} ms | {one['p99_ms']:.1f} ms |")
    print("\n| goal | at most | measured | |\n| :--- | ---: | ---: | :--- |")
    verdict = "ok" if over <= GOAL_OVER else "over"
    print(f"| data on disk over the limit of {size(limit)} | {GOAL_OVER:.0%} | {over:+.1%} | {verdict} |")
    print(f"| p99 of a write, with over without | {GOAL_RATIO:g} | {ratio:.2f} | {'ok' if ratio <= 2 else 'over'} |")
    print(f"\n{retention.removed.pages:,} pages and {retention.removed.runs:,} runs were removed meanwhile.")
    if files is not None:
        print(f"The server's files, with what is free in them, took {size(files)} in the end.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
