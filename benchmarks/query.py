"""How long questions take in stores of different sizes, beside the same questions written by hand for the store.

Run: ``python benchmarks/query.py [--sizes 10000,100000,1000000] [--rounds 40] [--folder FOLDER] [--json]
[--mongodb URI]``.

Each store is filled with stages of twenty candidates (from 500,000 stages on: without candidates). Then each question
is asked in turn of the service, as its API does but for HTTP (parsed, checked, searched, made presentable), and of the
store by hand: SQL on the same file, whose documents are unpacked; on MongoDB a ``find`` or ``aggregate`` on plain
documents of the same stages. Both end with the bytes of the JSON that is sent: the service's also say where to go on
and what the answer covers; the hand's have the rows alone, whole and with their times written as the API writes them.
Each asking has other values; both ways get the same ones, and have to give the same rows, field by field. The first
asking of each is not timed. Growth is the p50 in the largest store over that in the smallest one. A
goal that is missed is said, and fails nothing. Last comes what ``lost.py`` measures, in the sizes with candidates.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lost
import msgspec
from support.filled import PROJECT, fill, say
from support.query_report import Filled, Measured, Report, as_json, print_tables
from support.questions import QUESTIONS, ByHand, Question

from xray.exceptions import XRayError
from xray.plugins import installed
from xray_server.api.answers import Service
from xray_server.query.ast import Field, Scan, SortKey
from xray_server.settings import ServerSettings
from xray_server.stores.base import Store, WriteBatch
from xray_server.stores.sqlite import SqliteStore

SIZES = "10000,100000,1000000"
CANDIDATES = 20
WITHOUT_CANDIDATES_FROM = 500_000
ROUNDS = 40
SLOW_S, SLOW_ROUNDS = 0.5, 5
"""A question that takes as long is asked fewer times."""

DATABASE, PLAIN_DATABASE = "xray_benchmark_query", "xray_benchmark_query_plain"
Hand = Callable[[Question, dict[str, Any]], Any]


async def run(sizes: list[int], rounds: int, mongodb: str | None, folder: Path | None) -> Report:
    """Measure everything."""
    begin = time.perf_counter()
    report = Report()
    for size in sizes:
        with tempfile.TemporaryDirectory() as gone_after:
            await _sqlite(report, size, rounds, (folder or Path(gone_after)) / f"{size}.sqlite3")
        if mongodb is not None:
            await _mongodb(report, size, rounds, mongodb)
    report.took_s = time.perf_counter() - begin
    return report


async def _sqlite(report: Report, size: int, rounds: int, file: Path) -> None:
    store = SqliteStore(file)
    await store.open()
    try:
        await _fill(report, store, size)
        connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True, isolation_level=None)
        connection.execute("PRAGMA cache_size = -16384")  # as the store's readers have
        hand = ByHand(connection)
        try:
            await _ask_all(report, store, size, rounds, lambda question, given: question.by_sqlite(hand, given))
        finally:
            connection.close()
    finally:
        await store.close()


async def _mongodb(report: Report, size: int, rounds: int, uri: str) -> None:
    from pymongo import MongoClient
    from support.plain import PlainDocuments

    from xray_server.stores.mongo import MongoStore

    with MongoClient[dict[str, Any]](uri) as client:
        client.drop_database(DATABASE)
        client.drop_database(PLAIN_DATABASE)
        store = MongoStore(f"{uri.rstrip('/')}/{DATABASE}")
        await store.open()
        try:
            database = client[PLAIN_DATABASE]
            await _fill(report, store, size, PlainDocuments(database).add)
            await _ask_all(report, store, size, rounds, lambda question, given: question.by_mongodb(database, given))
        finally:
            await store.close()
            client.drop_database(DATABASE)
            client.drop_database(PLAIN_DATABASE)


async def _fill(report: Report, store: Store, size: int, beside: Callable[[WriteBatch], None] | None = None) -> None:
    candidates = CANDIDATES if size < WITHOUT_CANDIDATES_FROM else 0
    took_s = None
    if not (await store.usage()).stage_count:
        took_s = await fill(store, size, candidates=candidates, beside=beside)
    usage = await store.usage()
    report.filled.append(Filled(store.kind, size, candidates, took_s, usage.size_bytes))


async def _ask_all(report: Report, store: Store, size: int, rounds: int, hand: Hand) -> None:
    service = Service(store, installed(), ServerSettings())
    first = Scan("runs", sort=(SortKey(Field(("started_at",))), SortKey(Field(("id",)))), limit=1000)
    run_ids = [row.document["id"] for row in await store.scan(PROJECT, first)]
    for question in QUESTIONS:
        if question.needs_candidates and size >= WITHOUT_CANDIDATES_FROM:
            continue
        draw = random.Random(3)
        measured = Measured(store.kind, size, question.name, question.indexed)
        number, wanted = 0, rounds + 1
        say(f"{store.kind}, {size:,} stages: {question.name}")
        while number < wanted:
            given = question.draw(draw, run_ids)
            begin = time.perf_counter()
            try:
                answer = msgspec.json.encode(await question.ask(service, given))
            except XRayError as error:
                # The others are measured all the same.
                measured.failed = str(error)
                break
            took_s = time.perf_counter() - begin
            begin = time.perf_counter()
            by_hand = msgspec.json.encode(question.shown(hand(question, given)))
            by_hand_s = time.perf_counter() - begin
            measured.same &= question.agree(answer, by_hand)
            if number:
                measured.took_s.append(took_s)
                measured.by_hand_s.append(by_hand_s)
            elif max(took_s, by_hand_s) > SLOW_S:
                wanted = min(wanted, SLOW_ROUNDS + 1)
            number += 1
        report.measured.append(measured)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", default=SIZES, help="how many stages the stores have, by commas")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each question is asked")
    parser.add_argument("--folder", type=Path, help="keep the SQLite files here, and take those that are there")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON instead of tables")
    parser.add_argument("--mongodb", metavar="URI", help="measure the MongoDB store too, on this server")
    options = parser.parse_args()
    sizes = sorted(int(size) for size in options.sizes.split(","))
    report = asyncio.run(run(sizes, options.rounds, options.mongodb, options.folder))
    # Among stages that have candidates; in stores of its own.
    lost_sizes = [size for size in sizes if lost.OCCURRENCES <= size < WITHOUT_CANDIDATES_FROM]
    found = asyncio.run(lost.run(lost_sizes, options.rounds, options.mongodb)) if lost_sizes else None
    if options.json:
        print(json.dumps(as_json(report) | {"lost": found}, indent=2))
        return
    print_tables(report)
    if found is not None:
        print()
        lost.print_tables(found)


if __name__ == "__main__":
    main()
