"""How long it takes to say where a candidate got lost, in stores of different sizes, and what the index for it costs.

Run: ``python benchmarks/lost.py [--sizes 10000,100000] [--rounds 30] [--mongodb URI] [--json]``.

Each store gets filtering stages of twenty candidates, whose ids are drawn from ten million, as the service takes them
in; one id is in 200 of them. Then it is asked where that one was lost, and one that occurs nowhere, as the API does but
for HTTP. The first asking is not timed. Beside it the same answer by looking through all stages, once. Growth is the
p50 in the largest store over that in the smallest one. A goal that is missed is said, and fails nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sqlite3
import tempfile
import time
from pathlib import Path
from statistics import quantiles
from typing import Any

from support.filled import say

from xray.ids import new_id
from xray.plugins import installed
from xray_server.analysis.lost import lost
from xray_server.analysis.reading import Reader
from xray_server.ingest import Ingest
from xray_server.sightings.scanning import sightings_by_scan
from xray_server.stores.base import Store
from xray_server.stores.sqlite import SqliteStore

PROJECT = "default"
WANTED, OCCURRENCES = "the wanted one", 200
CANDIDATES, STAGES_PER_RUN, RUNS_PER_BATCH = 20, 5, 20
T0 = 1_793_491_200_000
DATABASE = "xray_benchmark_lost"
GOAL = 2.0


async def fill(store: Store, stages: int) -> float:
    """Write stages, and index them as the service does beside; the seconds that indexing took."""
    draw = random.Random(stages)
    ingest, has_it, indexing_s = Ingest(store, installed()), set(draw.sample(range(stages), OCCURRENCES)), 0.0
    for first in range(0, stages, STAGES_PER_RUN * RUNS_PER_BATCH):
        events: list[dict[str, Any]] = []
        for number in range(first, min(first + STAGES_PER_RUN * RUNS_PER_BATCH, stages)):
            if number % STAGES_PER_RUN == 0:
                run = {"id": new_id(), "label": f"pipeline {number % 3}", "started_at": T0 + number * 150}
            ids = [f"item-{draw.randrange(10_000_000):07d}" for _ in range(CANDIDATES)]
            if number in has_it:
                ids[draw.randrange(CANDIDATES)] = WANTED
            events.append(
                {
                    "type": "stage", "id": new_id(), "run": run, "name": f"filter {number % STAGES_PER_RUN}",
                    "stage_type": "filtering", "order": number % STAGES_PER_RUN, "started_at": T0 + number * 150,
                    "duration_ms": 3.5, "status": "success",
                    "capture": {"mode": "full", "seen": CANDIDATES, "kept": CANDIDATES},
                    "columns": {
                        "candidate_id": ids,
                        "verdict": [draw.choice(("passed", "failed")) for _ in ids],
                        "data": [{"id": each, "title": f"Thing {each}", "price": draw.randrange(9999)} for each in ids],
                    },
                }
            )  # fmt: skip
        result = await ingest.accept(PROJECT, events)
        assert not result.errors, result.errors
        began = time.perf_counter()
        while await store.index_candidates(PROJECT):
            pass
        indexing_s += time.perf_counter() - began
    return indexing_s


async def asked(reader: Reader, candidate_id: str) -> tuple[float, int]:
    """How long an answer took, in milliseconds, and how often the candidate was seen."""
    began = time.perf_counter()
    found = await reader.sightings(candidate_id, label=None, since=None, until=None, limit=1000)
    rows = lost(candidate_id, found.rows)
    return (time.perf_counter() - began) * 1e3, sum(row["seen"] for row in rows)


async def measure(store: Store, stages: int, rounds: int) -> dict[str, Any]:
    """Everything about one store."""
    say(f"{store.kind}: writing {stages:,} stages")
    indexing_s = await fill(store, stages)
    say(f"{store.kind}, {stages:,} stages: asking")
    reader = Reader(store, PROJECT)
    found: dict[str, Any] = {"stages": stages, "indexing_us": indexing_s * 1e6 / (stages * CANDIDATES)}
    for name, candidate_id, expected in (("wanted", WANTED, OCCURRENCES), ("nowhere", "nowhere", 0)):
        times = []
        for number in range(rounds + 1):
            took_ms, seen = await asked(reader, candidate_id)
            assert seen == expected, (candidate_id, seen)
            times += [took_ms] if number else []
        cuts = quantiles(times, n=20)
        found[name] = {"p50_ms": cuts[9], "p95_ms": cuts[18]}
    began = time.perf_counter()
    scanned = await sightings_by_scan(store, PROJECT, WANTED, None, None, None, None, 1000)
    found["scan_ms"] = (time.perf_counter() - began) * 1e3
    assert len(scanned) == OCCURRENCES
    return found


def index_bytes(file: Path) -> float | None:
    """What the index takes of the file, its part of half-filled pages included; None where SQLite cannot say."""
    connection = sqlite3.connect(file)
    try:
        query = "SELECT sum(pgsize) FROM dbstat WHERE name LIKE 'sighting%'"
        return float(connection.execute(query).fetchone()[0])
    except sqlite3.OperationalError:
        return None
    finally:
        connection.close()


async def run(sizes: list[int], rounds: int, mongodb: str | None) -> dict[str, list[dict[str, Any]]]:
    """Measure each store in each size."""
    found: dict[str, list[dict[str, Any]]] = {"sqlite": []}
    for stages in sizes:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "lost.sqlite3"
            store = SqliteStore(file)
            await store.open()
            try:
                measured = await measure(store, stages, rounds)
            finally:
                await store.close()
            taken = index_bytes(file)
            measured["index_bytes"] = taken and taken / (stages * CANDIDATES)
            measured["bytes"] = file.stat().st_size / (stages * CANDIDATES)
            found["sqlite"].append(measured)
        if mongodb is not None:
            found.setdefault("mongodb", []).append(await _on_mongodb(mongodb, stages, rounds))
    return found


async def _on_mongodb(uri: str, stages: int, rounds: int) -> dict[str, Any]:
    from pymongo import MongoClient

    from xray_server.stores.mongo import MongoStore

    with MongoClient[dict[str, Any]](uri) as client:
        client.drop_database(DATABASE)
        store = MongoStore(f"{uri.rstrip('/')}/{DATABASE}")
        await store.open()
        try:
            return await measure(store, stages, rounds)
        finally:
            await store.close()
            client.drop_database(DATABASE)


def print_tables(found: dict[str, list[dict[str, Any]]]) -> None:
    """Print what was measured."""
    print(f"An id that occurs {OCCURRENCES} times, in stages of {CANDIDATES} candidates.\n")
    print(
        "| store | stages | p50 ms | p95 ms | of an id that is nowhere, p50 ms | through all stages ms"
        " | indexing \N{MICRO SIGN}s a candidate | index bytes a candidate | all bytes a candidate |"
    )
    print("| :--- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for store, rows in found.items():
        for row in rows:
            sizes = [f"{row[name]:.2f}" if row.get(name) is not None else "" for name in ("index_bytes", "bytes")]
            print(
                f"| {store} | {row['stages']:,} | {row['wanted']['p50_ms']:.1f} | {row['wanted']['p95_ms']:.1f} |"
                f" {row['nowhere']['p50_ms']:.1f} | {row['scan_ms']:,.0f} | {row['indexing_us']:.2f} |"
                f" {' | '.join(sizes)} |"
            )
    print("\n| goal | wanted | measured |  |\n| :--- | ---: | ---: | :--- |")
    for store, rows in found.items():
        growth = rows[-1]["wanted"]["p50_ms"] / rows[0]["wanted"]["p50_ms"]
        name = f"growth on {store}, {rows[0]['stages']:,} to {rows[-1]['stages']:,} stages"
        print(f"| {name} | at most {GOAL:g} | {growth:.2f} | {'met' if growth <= GOAL else 'missed'} |")


def main() -> None:
    """Run the benchmark as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", default="10000,100000", help="stages in each store")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--mongodb", metavar="URI", help="measure the MongoDB store too, on this server")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON instead of tables")
    options = parser.parse_args()
    found = asyncio.run(run([int(size) for size in options.sizes.split(",")], options.rounds, options.mongodb))
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print_tables(found)


if __name__ == "__main__":
    main()
