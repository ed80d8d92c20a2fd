"""What the MongoDB store reads in one step: pages of many stages, single values, scans up to a deadline."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import pytest
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import ExecutionTimeout

from tests.mongodb import Databases
from xray.stage_types.base import Columns
from xray_server.pages import PAGE_SIZE, paginate
from xray_server.query.ast import Compare, Field, Metric, Not, Scan, SortKey
from xray_server.query.ast import Test as Condition
from xray_server.query.sorting import DEFAULT_SORT
from xray_server.stores.base import ScanCut, Store, WriteBatch
from xray_server.stores.mongo import MongoStore, joins
from xray_server.testing_data import BY_ID, PROJECT, ids, sample_batch, sample_columns, sample_runs, sample_stages

SMALL, GROWN, TWO, MANY = (f"00000000-0000-7000-9000-{number:012d}" for number in (1, 2, 3, 5))
"""Stages of the sample: a page inside, one that went on outside, two pages outside, more than a few."""

FEW_FINDS = 4


@pytest.fixture
def on_store(databases: Databases, tmp_path) -> Callable[[Callable[[Store], Awaitable[Any]]], Any]:
    """A function that uses an open store with the sample in it."""

    def run(use: Callable[[Store], Awaitable[Any]]) -> Any:
        async def in_loop() -> Any:
            store = MongoStore(databases.url(tmp_path))
            await store.open()
            try:
                await store.write(PROJECT, sample_batch())
                return await use(store)
            finally:
                await store.close()

        return asyncio.run(in_loop())

    return run


def long_columns(count: int, first: int = 0) -> Columns:
    """Candidates that are too long to lie in their stage."""
    texts = [f"{n} {hash((n, place))}" for n in range(first, first + count) for place in range(9)]
    data = [{"text": " ".join(texts[n * 9 : n * 9 + 9])} for n in range(count)]
    return Columns([f"candidate {n}" for n in range(first, first + count)], {"data": data})


async def write_pages(store: Store) -> None:
    """Give the four stages their pages."""
    stages = sample_stages(sample_runs())
    for stage_id, columns, start in (
        (SMALL, sample_columns(3), 0),
        (GROWN, sample_columns(3), 0),
        (GROWN, long_columns(60, 3), 3),
        (TWO, long_columns(PAGE_SIZE + 5), 0),
        (MANY, long_columns(PAGE_SIZE * 3), 0),
    ):
        stage = stages[stage_id]
        pages = paginate(stage["run_id"], stage_id, stage["pipeline"].get("started_at"), columns, start)
        await store.write(PROJECT, WriteBatch(stages={stage_id: stage}, pages=pages))


@contextmanager
def finds_counted() -> Iterator[list[str]]:
    """The names of the collections that are read, one for each find and aggregate."""
    read: list[str] = []

    def noting(original: Any) -> Any:
        def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
            read.append(self.name)
            return original(self, *args, **kwargs)

        return noted

    with ExitStack() as patches:
        for name in ("find", "aggregate"):
            patches.enter_context(mock.patch.object(AsyncCollection, name, noting(getattr(AsyncCollection, name))))
        yield read


def test_pages_of_many_stages_are_read_in_one_step(on_store):
    """Wherever pages lie they are all there; a stage with more than a few is left to be read by itself."""

    async def use(store: Store) -> None:
        await write_pages(store)
        others = sorted(sample_stages(sample_runs()).keys() - {SMALL, GROWN, TWO, MANY})
        await store.pages_of_many(PROJECT, [SMALL])  # what is looked up once
        with finds_counted() as read:
            found = await store.pages_of_many(PROJECT, [SMALL, GROWN, TWO, MANY, *others])
        assert len(read) <= FEW_FINDS
        assert set(found) == {SMALL, GROWN, TWO, *others}
        for stage_id, pages in found.items():
            assert list(pages) == [page async for page in store.pages(PROJECT, stage_id)]
        assert [len(found[stage_id]) for stage_id in (SMALL, GROWN, TWO, others[0])] == [1, 1, 2, 0]
        assert list(found[GROWN][0].ids) == [f"candidate {n}" for n in range(63)]

    on_store(use)


def test_candidates_are_counted_wherever_they_lie(on_store):
    """Counts are those of the pages; where a page is in two parts, which may overlap, none is given."""

    async def use(store: Store) -> None:
        await write_pages(store)
        found = await store.candidate_counts(PROJECT, [SMALL, GROWN, TWO, MANY, "unknown"])
        assert found == {SMALL: 3, TWO: PAGE_SIZE + 5, MANY: PAGE_SIZE * 3, "unknown": 0}

    on_store(use)


def test_where_a_candidate_was_is_read_in_a_few_steps(on_store):
    """Pages inside of stages, outside, and in two parts are found by their candidates, with few finds."""

    async def use(store: Store) -> None:
        await write_pages(store)
        await store.sightings(PROJECT, "candidate 2", limit=1)
        with finds_counted() as read:
            found = await store.sightings(PROJECT, "candidate 2", limit=50)
        assert len(read) <= 2 * FEW_FINDS
        assert {one.stage["id"] for one in found} >= {SMALL, GROWN, TWO, MANY}
        late = await store.sightings(PROJECT, "candidate 62", limit=50)
        assert GROWN in {one.stage["id"] for one in late}
        for one in (*found, *late):
            assert one.page in [page async for page in store.pages(PROJECT, one.stage["id"])]

    on_store(use)


def test_stages_are_grouped_where_filters_decide(on_store):
    """Conditions on schema's fields and metrics, of the stage and of its run, need no document."""
    names = ("id", "run_id", "path", "name", "type", "status")
    label = Condition(Field(("label",)), Compare("eq", "pipeline 1"))
    high = Condition(Metric("fail_ratio"), Compare("gt", 0.4))

    async def use(store: Store) -> None:
        for scan in (
            Scan("stages"),
            Scan("stages", pipeline=label, stage=high),
            Scan("stages", pipeline=Condition(Field(("status",)), Compare("eq", "success"))),
        ):
            rows = await store.scan(PROJECT, scan)
            by = [Field((name,)) for name in names]
            found = await store.grouped(PROJECT, scan, by, None, [Field(("order",)), Field(("duration_ms",))])
            assert found is not None
            assert found.stages == len(rows) > 0
            kept = [row.document for row in rows]
            expected = [
                (*map(one.get, names), [one[name] for name in ("order", "duration_ms") if name in one]) for one in kept
            ]
            given = [(*group.keys, [*itertools.chain(*group.numbers)]) for group in found.groups]
            assert sorted(given, key=str) == sorted(expected, key=str)

    on_store(use)


def test_stages_are_not_grouped_where_a_document_decides(on_store):
    """Candidates, free-form JSON, and metrics that are something else than numbers need the documents."""

    async def use(store: Store) -> None:
        free = Condition(Field(("metadata", "team")), Compare("eq", "ads"))
        odd = Condition(Metric("histogram"), Compare("gt", 0))
        assert await store.grouped(PROJECT, Scan("stages", stage=free), [], None, [Metric("failed")]) is None
        assert await store.grouped(PROJECT, Scan("stages", stage=odd), [], None, [Metric("failed")]) is None
        assert await store.grouped(PROJECT, Scan("stages"), [], None, [Metric("histogram", "counts")]) is None
        assert await store.grouped(PROJECT, Scan("stages"), [Field(("input",))], None, []) is None
        assert await store.grouped(PROJECT, Scan("stages", candidate=free), [], None, []) is None

    on_store(use)


def test_a_scan_that_is_cut_off_while_it_joins_gives_what_it_has(on_store, monkeypatch):
    """What was found before the server gave up is the beginning of the whole answer, ties included."""
    monkeypatch.setattr(joins, "CHUNK", 2)
    monkeypatch.setattr("xray_server.stores.mongo.finds.CHUNK", 2)
    monkeypatch.setattr("xray_server.stores.mongo.finds.WHOLE_AT_ONCE", 1)
    monkeypatch.setattr(joins, "FEW", 0)  # else the runs are looked up beforehand
    of_run = Not(Condition(Field(("status",)), Compare("eq", "running")))
    sorts = DEFAULT_SORT, (BY_ID,), (SortKey(Metric("fail_ratio"), descending=True), BY_ID)
    joined = joins.Joins.joined

    async def use(store: Store) -> None:
        for sort in sorts:
            whole = ids(await store.scan(PROJECT, Scan("stages", of_run, sort=sort)))
            lengths = set()
            for after in range(9):
                left = iter(range(after))

                async def until_it_ends(self: joins.Joins, raws: Any, left: Any = left) -> Any:
                    if next(left, None) is None:
                        raise ExecutionTimeout("operation exceeded time limit", 50)
                    return await joined(self, raws)

                with mock.patch.object(joins.Joins, "joined", until_it_ends), pytest.raises(ScanCut) as caught:
                    await store.scan(PROJECT, Scan("stages", of_run, sort=sort, deadline=time.monotonic() + 60))
                found = ids(caught.value.rows)
                assert found == whole[: len(found)]
                lengths.add(len(found))
            assert len(lengths) > 2

    on_store(use)


def test_a_server_that_is_gone_is_no_scan_that_took_too_long(on_store):
    """Only what the deadline ended is cut; any other failure is said as such."""

    async def use(store: Store) -> None:
        broken = mock.patch("xray_server.stores.mongo.scans.Scanner.rows", side_effect=OverflowError("no such number"))
        with broken, pytest.raises(Exception, match="no such number") as caught:
            await store.scan(PROJECT, Scan("stages", deadline=time.monotonic() + 60))
        assert not isinstance(caught.value, ScanCut)

    on_store(use)
