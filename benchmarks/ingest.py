"""What the service takes in: stages and candidates a second over HTTP, its memory, and the bytes on disk.

Run: ``python benchmarks/ingest.py [--quick] [--json] [--mongodb URI]``.

A real ``xray serve`` gets what the SDK sends for a filtering stage over dicts of five fields that gives each ``passed``
and ``reason``: msgpack by column, the dicts by field where the SDK was built with a compiler, in batches as it makes
them, over four connections, made beforehand. Beside it the same candidates are written raw, one row or document each,
in the same batches, with an index on the stage and one on the candidate. They take turns, each round on an empty store;
the service's first batch is not timed. A line of JSON Lines, and a raw row, says its stage's id and has the candidate's
fields, verdict and reason; the store's bytes hold the runs, stages, metrics and indexes too. A MongoDB server frees
what was removed only later, as what the index over candidate ids was made of: its bytes are given as they are at once,
and, after each last round, as they are once they have not changed for a while. A goal that is missed is said, and fails
nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from support.catalogue import Bodies, make_bodies
from support.ingest_report import Case, Report, Round, as_json, print_tables
from support.raw import json_lines, mongodb_bytes, mongodb_documents, sqlite_rows
from support.service import Service

STAGES = {20: 10_000, 5000: 50}
QUICK_STAGES = {20: 4000, 5000: 20}
ROUNDS, QUICK_ROUNDS = 5, 2
UNCHANGED_S, SETTLED_WITHIN_S = 75, 300
"""Servers on PostgreSQL clean up about once a minute."""

RAW_DATABASE, DATABASE = "xray_benchmark_raw", "xray_benchmark"


def run(*, quick: bool, mongodb: str | None) -> Report:
    """Measure everything."""
    begin = time.perf_counter()
    report = Report(quick=quick)
    with tempfile.TemporaryDirectory() as folder:
        for size, stages in (QUICK_STAGES if quick else STAGES).items():
            made = make_bodies(size, stages)
            lines = json_lines(made.rows)
            stores = ["sqlite"] if mongodb is None else ["sqlite", "mongodb"]
            cases = [Case(store, size, stages, len(made.rows[0]), *lines) for store in stores]
            for number in range(QUICK_ROUNDS if quick else ROUNDS):
                is_last = number + 1 == (QUICK_ROUNDS if quick else ROUNDS)
                for case in cases:
                    place = Path(folder) / f"{case.store}-{size}-{number}"
                    place.mkdir()
                    if case.store == "sqlite":
                        case.rounds.append(_sqlite(place, made))
                    else:
                        case.rounds.append(_mongodb(str(mongodb), made, settle=is_last))
            report.cases += cases
    report.took_s = time.perf_counter() - begin
    return report


def _sqlite(folder: Path, made: Bodies) -> Round:
    raw_s, raw_bytes = sqlite_rows(folder / "raw.sqlite3", made.rows)
    file = folder / "xray.sqlite3"
    took_s, idle, after, peak = _served(f"sqlite:///{file}", made)
    # The service has ended: what was in the log is in the file.
    found = Round(took_s, raw_s, file.stat().st_size, raw_bytes, idle, after, peak)
    for written in folder.iterdir():
        written.unlink()
    return found


def _mongodb(uri: str, made: Bodies, *, settle: bool) -> Round:
    from pymongo import MongoClient

    raw_s, raw_bytes = mongodb_documents(uri, RAW_DATABASE, made.rows)
    with MongoClient(uri) as client:
        client.drop_database(DATABASE)
        store = f"{uri.rstrip('/')}/{DATABASE}"
        took_s, idle, after, peak = _served(store, made)
        size = mongodb_bytes(client[DATABASE])
        settled = _settled(store, client[DATABASE]) if settle else None
        client.drop_database(DATABASE)
    return Round(took_s, raw_s, size, raw_bytes, idle, after, peak, settled)


def _settled(store: str, database: Any) -> int:
    """The bytes of a store once they have not changed for a while; the service that looks after it is running."""
    with Service(store):
        begin = changed = time.monotonic()
        size = mongodb_bytes(database)
        while time.monotonic() - changed < UNCHANGED_S and time.monotonic() - begin < SETTLED_WITHIN_S:
            time.sleep(2)
            now = mongodb_bytes(database)
            if now != size:
                size, changed = now, time.monotonic()
    return size


def _served(store: str, made: Bodies) -> tuple[float, float | None, float | None, float | None]:
    with Service(store) as service:
        idle = service.memory_mb()
        # The first batch starts and imports what a service that has been running for a while has.
        service.post_all(made.bodies[:1])
        took_s = service.post_all(made.bodies[1:])
        if not service.count_stages():
            raise RuntimeError("The service took everything and has nothing.")
        return took_s, idle, service.memory_mb(), service.memory_mb("VmHWM")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few repetitions and little data")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON instead of tables")
    parser.add_argument("--mongodb", metavar="URI", help="measure the MongoDB store too, on this server")
    options = parser.parse_args()
    report = run(quick=options.quick, mongodb=options.mongodb)
    if options.json:
        print(json.dumps(as_json(report), indent=2))
    else:
        print_tables(report)


if __name__ == "__main__":
    main()
