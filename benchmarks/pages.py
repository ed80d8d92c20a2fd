"""How long the dashboard's pages take in stores of different sizes, how heavy they are, and when a large one is ready.

Run: ``python benchmarks/pages.py [--sizes 10000,100000,1000000] [--rounds 40] [--mongodb URI] [--json]``.

Each store is filled with stages of twenty candidates (from 500,000 stages on: without candidates) and brought up to
date; then ``xray serve`` answers each page's address in turn over one connection, each time for another run, stage or
candidate. Time is that from the request to the first byte of the answer; weight is that of the HTML alone. The first
answer of each page is not timed. Growth is the p50 in the largest store over that in the smallest one. Then a run of
3,000 stages and a stage of 5,000 candidates are opened in Chromium, where there is one: time is that from going there
until the scripts are done and the parts in view have come. A goal that is missed is said, and fails nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from support.filled import BEGIN_MS, DAY_MS, DAYS, PROJECT, VERSIONS, fill
from support.service import Service

from xray.client import Client
from xray.hand_built import Run
from xray_server.api.answers import iso_time
from xray_server.app import open_store
from xray_server.rollups import refresh, refresh_half_days

SIZES = "10000,100000,1000000"
CANDIDATES = 20
WITHOUT_CANDIDATES_FROM = 500_000
ROUNDS = 40
KNOWN = 200
"""Runs that are drawn from for the addresses."""

GOAL_MS, GOAL_GROWTH, GOAL_READY_MS = 100, 2, 1000
GOAL_PAGES = ("runs", "run", "stage")
DATABASE = "xray_benchmark_pages"
KEEPS_ALL = {"XRAY_SERVER_KEEP_CANDIDATES": "forever", "XRAY_SERVER_KEEP_RUNS": "forever"}
"""What the stores hold is older than what the service keeps by default: it would remove it beside answering."""


@dataclass
class Page:
    """What was measured of a page in one store: milliseconds to the first byte, and bytes."""

    store: str
    size: int
    name: str
    times_ms: list[float] = field(default_factory=list)
    weights: list[int] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """As one row of the result."""
        cuts = statistics.quantiles(self.times_ms, n=20, method="inclusive")
        return {
            "store": self.store,
            "stages": self.size,
            "page": self.name,
            "p50_ms": round(statistics.median(self.times_ms), 1),
            "p95_ms": round(cuts[18], 1),
            "weight_kb": round(statistics.median(self.weights) / 1000, 1),
        }


class Addresses:
    """Draws addresses of pages.

    Args:
        client: Of the service.
        draw: The source of chance.
    """

    def __init__(self, client: Client, draw: random.Random) -> None:
        self._draw = draw
        self._runs: list[tuple[str, str, list[str]]] = []
        for _ in range(KNOWN):
            until = iso_time(BEGIN_MS + draw.randrange(DAY_MS, DAYS * DAY_MS))
            row = client.runs(until=until, limit=1)["rows"][0]
            stages = [stage["id"] for stage in client.run(row["id"])["stages"]]
            self._runs.append((row["id"], row["label"], stages))

    def of(self, name: str) -> str:
        """An address of a kind of page."""
        draw = self._draw
        run, label, stages = draw.choice(self._runs)
        since = iso_time(BEGIN_MS + draw.randrange(DAYS - 30) * DAY_MS)
        until = iso_time(BEGIN_MS + DAYS * DAY_MS)
        ratio = round(draw.uniform(0.5, 0.9), 3)
        question = {"pipeline": {"label": label}, "stage": {"$failRatio": {"$gt": ratio}}, "sort": {"$failRatio": -1}}
        return {
            "runs": "/",
            "runs, filtered": f"/?label={label}&version={draw.choice(VERSIONS)}&until={until}",
            "runs, by a metric": f"/?label={label}&sort=-%24failRatio",
            "run": f"/runs/{run}",
            "stage": f"/stages/{draw.choice(stages)}",
            "candidates of a stage": f"/stages/{stages[1]}?view=candidates",
            "candidate": f"/runs/{run}/candidates/product-{draw.randrange(1000)}",
            "query": f"/query?q={quote(json.dumps(question))}",
            "trends": f"/trends?label={label}&since={since}&until={until}",
            "compare runs": f"/compare?a={run}&b={draw.choice(self._runs)[0]}",
            "system": "/system",
        }[name]


PAGES = (
    "runs", "runs, filtered", "runs, by a metric", "run", "stage", "candidates of a stage", "candidate", "query",
    "trends", "compare runs", "system",
)  # fmt: skip


def measure(store: str, size: int, server: Service, rounds: int) -> list[Page]:
    """Ask for each page in turn."""
    host, port = server.place
    with Client(server_url(server), timeout_s=300) as client:
        addresses = Addresses(client, random.Random(5))
    pages = [Page(store, size, name) for name in PAGES]
    connection = http.client.HTTPConnection(host, port, timeout=300)
    try:
        for number in range(rounds + 1):
            for page in pages:
                begin = time.perf_counter()
                connection.request("GET", addresses.of(page.name), headers={"Accept": "text/html"})
                answer = connection.getresponse()
                took_ms = (time.perf_counter() - begin) * 1000
                body = answer.read()
                if answer.status != 200:
                    raise RuntimeError(f"{page.name} answered {answer.status}: {body[:500]!r}")
                if number:
                    page.times_ms.append(took_ms)
                    page.weights.append(len(body))
    finally:
        connection.close()
    return pages


def server_url(server: Service) -> str:
    """The service's address."""
    return "http://{}:{}".format(*server.place)


async def prepare(url: str, size: int) -> tuple[float, float]:
    """Fill a store and bring its rollups up to date; the seconds that each took."""
    store = open_store(url)
    await store.open()
    try:
        candidates = 0 if size >= WITHOUT_CANDIDATES_FROM else CANDIDATES
        filled_s = await fill(store, size, candidates=candidates)
        begin = time.perf_counter()
        until = BEGIN_MS + 2 * DAYS * DAY_MS
        while await refresh(store, PROJECT, until=until, limit=5000):
            pass
        while await refresh_half_days(store, PROJECT, until=until):
            pass
        return filled_s, time.perf_counter() - begin
    finally:
        await store.close()


@contextmanager
def stores(sizes: list[int], mongodb: str | None) -> Iterator[list[tuple[str, int, str]]]:
    """The stores to measure: kind, size, URL; gone at the end."""
    with tempfile.TemporaryDirectory() as folder:
        found = [("sqlite", size, f"sqlite:///{folder}/{size}.sqlite3") for size in sizes]
        if mongodb is not None:
            base = mongodb.rstrip("/")
            found += [("mongodb", size, f"{base}/{DATABASE}_{size}") for size in sizes]
        try:
            yield found
        finally:
            if mongodb is not None:
                from pymongo import MongoClient

                with MongoClient(mongodb) as client:
                    for size in sizes:
                        client.drop_database(f"{DATABASE}_{size}")


def large_pages(server: Service, rounds: int = 5) -> list[dict[str, Any]]:
    """How long a run of 3,000 stages and a stage of 5,000 candidates take to be ready in Chromium."""
    path = os.environ.get("XRAY_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        return []
    from playwright.sync_api import sync_playwright

    long = Run("long", version="1")
    for number in range(3000):
        long.stage(f"step {number % 30}", "raw", duration_ms=1.0, input={"number": number})
    wide = Run("wide", version="1")
    stage = wide.stage("judge", "scoring", duration_ms=1.0)
    draw = random.Random(1)
    for number in range(5000):
        stage.candidate(
            f"c{number}", score=draw.random(), data={"price": draw.randrange(1000), "title": f"item {number}"}
        )
    with Client(server_url(server), timeout_s=300) as client:
        client.send(long)
        client.send(wide)
    rows = []
    # Chromium refuses its sandbox to root.
    arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        for name, address in (
            ("a run of 3,000 stages", f"/runs/{long.id}"),
            ("a stage of 5,000 candidates", f"/stages/{stage.id}"),
            ("its candidates", f"/stages/{stage.id}?view=candidates"),
        ):
            times = []
            for _ in range(rounds):
                page = browser.new_page()
                begin = time.perf_counter()
                page.goto(server_url(server) + address, wait_until="domcontentloaded")
                while not page.evaluate(_READY):
                    page.wait_for_timeout(5)
                times.append((time.perf_counter() - begin) * 1000)
                page.close()
            rows.append({"page": name, "ready_ms": round(statistics.median(times)), "worst_ms": round(max(times))})
        browser.close()
    return rows


_READY = "'ready' in document.documentElement.dataset && !document.querySelector('[data-loading]')"


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default=SIZES, help="stages of the stores")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--mongodb", help="a server to measure too")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    sizes = [int(size) for size in given.sizes.split(",")]
    say: Callable[[str], None] = (lambda _: None) if given.json else lambda text: print(text, flush=True)
    pages: list[Page] = []
    large: list[dict[str, Any]] = []
    with stores(sizes, given.mongodb) as found:
        for kind, size, url in found:
            filled_s, refreshed_s = asyncio.run(prepare(url, size))
            say(f"{kind}, {size:,} stages: filled in {filled_s:.0f} s, rollups in {refreshed_s:.0f} s")
            with Service(url, KEEPS_ALL) as server:
                pages += measure(kind, size, server, given.rounds)
                if size == sizes[0]:
                    large += [{"store": kind, **row} for row in large_pages(server)]
    rows = [page.row() for page in pages]
    if given.json:
        print(json.dumps({"pages": rows, "large": large}, indent=2))
        return
    report(rows, large, sizes, say)


def report(
    rows: list[dict[str, Any]], large: list[dict[str, Any]], sizes: list[int], say: Callable[[str], None]
) -> None:
    """Print the tables, and what misses a goal."""
    missed = []
    for kind in dict.fromkeys(row["store"] for row in rows):
        say(f"\n{kind}: ms to the first byte, p50 / p95, and kB\n")
        say(f"{'page':24}" + "".join(f"{size:>26,}" for size in sizes) + f"{'growth':>9}")
        for name in PAGES:
            mine = [row for row in rows if row["store"] == kind and row["page"] == name]
            cells = "".join(f"{row['p50_ms']:>9} / {row['p95_ms']:>6} {row['weight_kb']:>5} kB" for row in mine)
            growth = mine[-1]["p50_ms"] / max(mine[0]["p50_ms"], 0.1)
            say(f"{name:24}{cells}{growth:>8.1f}x")
            if name in GOAL_PAGES:
                slow = [
                    f"{kind}, {name}, {row['stages']:,}: p95 {row['p95_ms']} ms"
                    for row in mine
                    if row["p95_ms"] > GOAL_MS
                ]
                missed += slow + ([f"{kind}, {name}: growth {growth:.1f}x"] if growth > GOAL_GROWTH else [])
    if large:
        say("\nReady in Chromium, ms: median (worst of 5)\n")
    for row in large:
        say(f"{row['store']:10}{row['page']:32}{row['ready_ms']:>8} ({row['worst_ms']})")
        if row["ready_ms"] > GOAL_READY_MS:
            missed.append(f"{row['store']}, {row['page']}: ready after {row['ready_ms']} ms")
    say("\n" + ("Missed: " + "; ".join(missed) if missed else "Every goal is met."))


if __name__ == "__main__":
    main()
