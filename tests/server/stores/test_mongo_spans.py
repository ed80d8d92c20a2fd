"""Scans by start on the MongoDB store, span after span: the same rows in the same order, and few documents read."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
from bson.datetime_ms import DatetimeMS
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import ExecutionTimeout

from tests.mongodb import Databases
from xray.ids import id_text, now_ms
from xray_server.documents import Document
from xray_server.query.ast import EVERYTHING, And, Compare, Condition, Field, Metric, Not, Scan, SortKey
from xray_server.query.ast import Test as Holds
from xray_server.query.evaluate import matches
from xray_server.query.sorting import DEFAULT_SORT
from xray_server.stores.base import ScanCut, Store, WriteBatch
from xray_server.stores.mongo import MongoStore, extents, spans
from xray_server.stores.mongo.filters import FALSE
from xray_server.testing_data import BY_ID, PROJECT, ids, in_order

STARTED = Field(("started_at",))
EARLIEST_FIRST = (SortKey(STARTED), BY_ID)
BY_LABEL = (SortKey(Field(("label",))), *DEFAULT_SORT)
BEGIN_MS = 1_750_000_000_000
HOUR_MS = 3_600_000
MANY_RUNS = 1500
"""A run a minute."""

Use = Callable[[Callable[[Store], Awaitable[Any]]], Any]


@pytest.fixture
def on_store(databases: Databases, tmp_path, monkeypatch) -> Use:
    """A function that uses an open store, as one on a server that sorts whatever a filter lets through."""
    monkeypatch.setattr(spans, "server_sorts", mock.AsyncMock(return_value=True))
    monkeypatch.setattr(spans, "FEW", 3)

    def run(use: Callable[[Store], Awaitable[Any]]) -> Any:
        async def in_loop() -> Any:
            store = MongoStore(databases.url(tmp_path))
            await store.open()
            try:
                return await use(store)
            finally:
                await store.close()

        return asyncio.run(in_loop())

    return run


@contextmanager
def finds_noted(collection: str) -> Iterator[list[dict[str, Any]]]:
    """The filters of the finds in a collection that are for several documents."""
    noted: list[dict[str, Any]] = []
    find = AsyncCollection.find

    def noting(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.name == collection and kwargs.get("limit", 0) >= 0:
            noted.append(args[0])
        return find(self, *args, **kwargs)

    with mock.patch.object(AsyncCollection, "find", noting):
        yield noted


def holds(reference: Field | Metric, operator: str, value: Any) -> Condition:
    """A condition that compares."""
    return Holds(reference, Compare(operator, value))  # type: ignore[arg-type]


def random_batch(draw: random.Random) -> WriteBatch:
    """Runs and stages that share starts, have none, begin in the future or long ago; some are close together."""
    soon = now_ms() + 400 * 24 * HOUR_MS
    places = [BEGIN_MS + draw.randrange(5) for _ in range(3)] + [BEGIN_MS - draw.randrange(90 * 24) * HOUR_MS]
    places += [BEGIN_MS - draw.randrange(10**6), now_ms() - 5, soon, 1000, -1000]
    batch = WriteBatch()
    for number in range(90):
        # A text that comes before every UUID, as texts do in the store.
        run_id = id_text(draw.getrandbits(48), draw.getrandbits(62)) if number % 7 else f"! {number}"
        run: Document = {"id": run_id, "label": draw.choice(("search", "ads"))}
        if number % 9:
            run["started_at"] = draw.choice(places) + draw.choice((0, 0, 0, 1, -1, draw.randrange(9)))
        batch.runs[run_id] = run
        stage: Document = {
            "id": id_text(draw.getrandbits(48), draw.getrandbits(62)),
            "run_id": run_id,
            "name": "filter",
            "type": "filtering",
            "pipeline": {key: value for key, value in run.items() if key != "id"} | {"id": run_id},
            "metrics": {"fail_ratio": draw.randrange(5) / 4},
        }
        if number % 8:
            stage["started_at"] = draw.choice(places) + draw.choice((0, 0, 1))
        batch.stages[stage["id"]] = stage
    return batch


def scans_of(draw: random.Random, starts: list[int]) -> Iterator[Scan]:
    """Scans of runs and stages by start, with conditions on other fields, on metrics, and on the start itself."""
    of_label = holds(Field(("label",)), "eq", "search")
    since = holds(STARTED, draw.choice(("gt", "gte")), draw.choice(starts))
    until = holds(STARTED, draw.choice(("lt", "lte")), draw.choice(starts) + draw.choice((0, 0.5)))
    high = holds(Metric("fail_ratio"), "gt", 0.5)
    begins = holds(STARTED, "eq", draw.choice(starts))
    for order in (DEFAULT_SORT, EARLIEST_FIRST):
        for own in (EVERYTHING, since, until, And((since, until)), Not(since), begins):
            yield Scan("runs", pipeline=own, sort=order)
            yield Scan("runs", pipeline=And((of_label, own)), sort=order)
            yield Scan("stages", stage=own, sort=order)
            yield Scan("stages", pipeline=of_label, stage=And((high, own)), sort=order)
        yield Scan("runs", stage=high, sort=order)
    yield Scan("runs", sort=BY_LABEL)


async def all_pages(store: Store, scan: Scan, limit: int) -> list[str]:
    """What a scan finds page by page, with a cursor from each to the next."""
    found: list[str] = []
    after: tuple[Any, ...] | None = None
    while True:
        rows = await store.scan(PROJECT, replace(scan, limit=limit, after=after))
        found += ids(rows)
        if len(rows) < limit:
            return found
        after = rows[-1].sort_values


@pytest.mark.parametrize(("first_ms", "whole"), [(1, 0.001), (spans.FIRST_MS, spans.WHOLE)])
def test_spans_change_nothing_in_what_is_found(on_store: Use, monkeypatch, first_ms, whole):
    """Ties, absent starts, the future, borders of spans, cursors through all pages: it is the sorted whole."""
    monkeypatch.setattr(spans, "FIRST_MS", first_ms)
    monkeypatch.setattr(spans, "WHOLE", whole)

    async def use(store: Store) -> None:
        draw = random.Random(7)
        batch = random_batch(draw)
        await store.write(PROJECT, batch)
        stages_of: dict[str, list[Document]] = {}
        for stage in batch.stages.values():
            stages_of.setdefault(stage["run_id"], []).append(stage)
        starts = [one["started_at"] for one in (*batch.runs.values(), *batch.stages.values()) if "started_at" in one]
        for scan, limit in zip(scans_of(draw, starts), itertools.cycle((1000, 2, 7, 1, 30)), strict=False):
            wanted = in_order(
                [run for run in batch.runs.values() if matches(scan.pipeline, run)]
                if scan.of == "runs"
                else [
                    stage
                    for stage in batch.stages.values()
                    if matches(scan.stage, stage) and matches(scan.pipeline, stage["pipeline"])
                ],
                scan.sort,
            )
            if scan.of == "runs" and scan.stage != EVERYTHING:
                wanted = [run for run in wanted if any(matches(scan.stage, one) for one in stages_of[run["id"]])]
            assert await all_pages(store, scan, limit) == [one["id"] for one in wanted], (scan, limit)
            again_limit = min(limit, len(wanted) + 1)
            again = await store.scan(PROJECT, replace(scan, limit=again_limit))
            assert ids(again) == [one["id"] for one in wanted[:again_limit]], "what is remembered changes nothing"

    on_store(use)


async def write_many(store: Store, first: int = 0, count: int = MANY_RUNS) -> None:
    """Write runs of one stage each, a minute from one to the next."""
    batch = WriteBatch()
    for number in range(first, first + count):
        start = BEGIN_MS + number * 60_000
        run = {"id": id_text(start * 10**6, number), "label": "rare" if number % 20 == 0 else "often"}
        run |= {"started_at": start}
        batch.runs[run["id"]] = run
        stage_id = id_text(start * 10**6, MANY_RUNS + number)
        batch.stages[stage_id] = {
            "id": stage_id, "run_id": run["id"], "name": "filter", "type": "filtering", "pipeline": run,
            "started_at": start + 10, "metrics": {"fail_ratio": number % 10 / 10},
        }  # fmt: skip
    await store.write(PROJECT, batch)


def bounded_by(filters: list[dict[str, Any]]) -> list[tuple[int | None, int | None]]:
    """Between which starts the filters of finds let anything through, as an index has it."""
    return [spans.split(one)[1:] for one in filters]


def test_the_latest_are_read_from_a_bounded_range(on_store: Use):
    """However much is stored: what is newer than the last row, and little more; without a look for where it lies."""
    rare = holds(Field(("label",)), "eq", "rare")
    high = holds(Metric("fail_ratio"), "gt", 0.7)

    async def use(store: Store) -> None:
        await write_many(store)
        end = BEGIN_MS + MANY_RUNS * 60_000
        for scan, rows_of_all in (
            (Scan("runs", sort=DEFAULT_SORT, limit=20), 1),
            (Scan("stages", sort=DEFAULT_SORT, limit=20), 1),
            (Scan("stages", stage=high, sort=DEFAULT_SORT, limit=20), 5),
            (Scan("runs", pipeline=rare, sort=DEFAULT_SORT, limit=2), 20),
        ):
            first = await store.scan(PROJECT, scan)
            with finds_noted(scan.of) as filters:
                assert await store.scan(PROJECT, scan) == first
            found = bounded_by(filters)
            needed_ms = scan.limit * rows_of_all * 60_000
            assert 1 <= len(found) <= 2, "one span, or two where one was too short"
            assert all(low is not None and low > end - 4 * needed_ms for low, _ in found)
            behind = replace(scan, after=first[-1].sort_values)
            following = await store.scan(PROJECT, behind)
            with finds_noted(scan.of) as filters:
                assert await store.scan(PROJECT, behind) == following
            lows = [low for low, _ in bounded_by(filters) if low is not None]
            assert lows, "an equal start is looked for, and then a span"
            assert min(lows) > end - 8 * needed_ms

    on_store(use)


def test_hours_in_their_order_are_one_find_each(on_store: Use):
    """Once one hour was read, as rollups read them, the others of its kind are not felt for in small spans."""

    async def use(store: Store) -> None:
        await write_many(store, count=1200)
        for hour in range(8):
            begin = BEGIN_MS + hour * HOUR_MS
            own = And((holds(STARTED, "gte", begin), holds(STARTED, "lt", begin + HOUR_MS)))
            with finds_noted("stages") as filters:
                rows = await store.scan(PROJECT, Scan("stages", stage=own, sort=EARLIEST_FIRST, limit=100))
            assert len(rows) == 60
            assert len(bounded_by(filters)) == 1 or hour == 0

    on_store(use)


def test_what_comes_meanwhile_is_found_at_once(on_store: Use):
    """Spans begin where the newest was when it was looked for; what is newer than that is in the first of them."""

    async def use(store: Store) -> None:
        scan = Scan("runs", sort=DEFAULT_SORT, limit=3)
        await write_many(store, count=200)
        assert len(await store.scan(PROJECT, scan)) == 3
        for start in (BEGIN_MS + 999 * HOUR_MS, now_ms(), now_ms() + 10**12):
            await store.write(PROJECT, WriteBatch(runs={f"at {start}": {"id": f"at {start}", "started_at": start}}))
            assert ids(await store.scan(PROJECT, scan))[0] == f"at {start}"

    on_store(use)


def test_a_scan_that_is_cut_off_gives_what_its_spans_had(on_store: Use, monkeypatch):
    """Whatever find the deadline comes in: the rows are the beginning of the answer, and more of them the later."""
    monkeypatch.setattr(spans, "FIRST_MS", 1)
    monkeypatch.setattr(spans, "WIDER", 2)
    high = holds(Metric("fail_ratio"), "gt", 0.5)
    scan = Scan("stages", stage=high, sort=DEFAULT_SORT, limit=400)
    find = AsyncCollection.find

    async def use(store: Store) -> None:
        await write_many(store, count=300)
        whole = ids(await store.scan(PROJECT, scan))
        lengths = set()
        for after in range(1, 25, 3):
            # As a process that has just begun.
            store._spans = spans.Spans()  # type: ignore[attr-defined]
            left = iter(range(after))

            def until_it_ends(self: Any, *args: Any, left: Iterator[int] = left, **kwargs: Any) -> Any:
                if self.name == "stages" and next(left, None) is None:
                    raise ExecutionTimeout("operation exceeded time limit", 50)
                return find(self, *args, **kwargs)

            with mock.patch.object(AsyncCollection, "find", until_it_ends):
                try:
                    found = ids(await store.scan(PROJECT, replace(scan, deadline=time.monotonic() + 60)))
                except ScanCut as cut:
                    found = ids(cut.rows)
            assert found == whole[: len(found)]
            lengths.add(len(found))
        assert {0, len(whole)} < lengths, "nothing, some, and in the end all"

    on_store(use)


def test_a_server_that_reads_in_order_is_asked_once(databases: Databases, tmp_path, monkeypatch):
    """Where the plan has no step that sorts, a scan is one find without spans, and nothing is looked for before."""
    monkeypatch.setattr(spans, "server_sorts", mock.AsyncMock(return_value=False))
    monkeypatch.setattr(spans, "FEW", 3)

    async def in_loop() -> None:
        store = MongoStore(databases.url(tmp_path))
        await store.open()
        try:
            await write_many(store, count=30)
            for of in ("runs", "stages"):
                with finds_noted("runs") as of_runs, finds_noted("stages") as of_stages:
                    rows = await store.scan(PROJECT, Scan(of, sort=DEFAULT_SORT, limit=5))
                assert len(rows) == 5
                assert bounded_by([*of_runs, *of_stages]) == [(None, None)]
        finally:
            await store.close()

    asyncio.run(in_loop())


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [
        ({"winningPlan": {"stage": "LIMIT", "inputStage": {"stage": "FETCH", "inputStage": {}}}}, False),
        ({"winningPlan": {"stage": "SORT", "inputStage": {"stage": "FETCH"}}}, True),
        ({"winningPlan": {"stage": "SHARD_MERGE_SORT", "shards": [{"winningPlan": {"stage": "FETCH"}}]}}, False),
        ({"winningPlan": {"stage": "SHARD_MERGE", "shards": [{"winningPlan": {"stage": "SORT"}}]}}, True),
        ({"winningPlan": {"stage": "FETCH"}, "rejectedPlans": [{"stage": "SORT"}]}, False),
        ({"postgresPlan": {"Node Type": "Limit", "Plans": [{"Node Type": "Sort", "Plans": []}]}}, True),
        ({"postgresPlan": {"Node Type": "Limit", "Plans": [{"Node Type": "Index Scan"}]}}, False),
    ],
)  # fmt: skip
def test_plans_say_whether_a_server_sorts(reply, wanted):
    """By MongoDB's name of the step, on one server and on shards, or by PostgreSQL's below; of the plan that won."""
    assert extents.sorts({"queryPlanner": reply}) is wanted


def test_bounds_of_time_are_taken_out_of_a_filter():
    """All of them become one pair, whole milliseconds from the first to before the last; what is none stays."""
    date = DatetimeMS
    where = {"$and": [{"w": 9, "s": {"$gt": date(4), "$lte": date(9)}}, {"s": {"$gte": date(3)}}, {"$or": [{"s": 1}]}]}
    assert spans.split(where) == ({"w": 9, "$or": [{"s": 1}]}, 5, 10)
    for value in (2**63 - 1, -(2**63)):
        outermost = {"s": {"$lte": date(value)}}
        assert spans.split(outermost) == (outermost, None, None), "there is no millisecond beyond it"
    assert spans.split({"s": date(5)}) == ({"s": date(5)}, None, None)
    assert spans.split({"s": {"$ne": None}}) == ({"s": {"$ne": None}}, None, None)


def test_a_cursor_beyond_the_bounds_of_its_question_finds_nothing_there():
    """A cursor may come from another question: what began with its last row is not looked for out of bounds."""
    where = {"p": 1, "s": {"$gte": DatetimeMS(5), "$lt": DatetimeMS(10)}}
    way = spans.Way(where, 10, descending=True, wanted=1, is_listed=False)
    assert [way.at(start) == {"p": 1, "s": DatetimeMS(start)} for start in (4, 5, 9, 10)] == [False, True, True, False]
    assert way.at(4) == way.at(10) == FALSE
