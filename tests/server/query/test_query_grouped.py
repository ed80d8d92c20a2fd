"""Figures of stages that the store groups against the same figures out of the stages, one by one; on both stores."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.mongodb import Databases
from tests.server.query.test_query_hours import CATALOG, END, HOUR_MS, make_batch, random_question
from xray_server.documents import Document
from xray_server.query import aggregate as query_aggregate
from xray_server.query.aggregate import Aggregated, aggregate
from xray_server.query.aggregate_parser import parse_aggregation
from xray_server.rollups import refresh
from xray_server.stores.base import Store, WriteBatch
from xray_server.stores.mongo import MongoStore
from xray_server.stores.mongo import grouping as mongo_grouping
from xray_server.stores.sqlite import SqliteStore
from xray_server.stores.sqlite import grouping as sqlite_grouping

QUESTIONS = 60


def sample() -> WriteBatch:
    """Stages with numbers of many kinds: integers beyond a double, sums that round, tables, nothing, something else."""
    draw = random.Random(11)
    batch = make_batch(4)
    for stage in batch.stages.values():
        stage |= {"duration_ms": draw.choice((0.1, 0.2, 0.30000000000000004, 7, 1e-300)), "order": draw.randrange(4)}
        stage["status"] = draw.choice(("success", "failure"))
        metrics: Document = stage["metrics"]
        metrics["passed"] = draw.choice((1, 2**53, 2**53 + 1, -(2**62), 3))
        metrics["fail_ratio"] = draw.choice((0.1, 0.2, 0.7, 1e16, -1e16, 1.0, 5e-324, None))
    return batch


def question(draw: random.Random) -> dict[str, Any]:
    """An aggregation that a store can group by itself, mostly."""
    asked = random_question(draw)
    fields = ("pipeline.label", "name", "type", "pipeline.version", "status", "run_id", "id", "pipeline.id")
    asked["group_by"] = draw.sample(fields, draw.randint(0, 3))
    for word in draw.sample(("$p50", "$p99", "$sum", "$avg", "$max"), 2):
        reference = draw.choice(("$failRatio", "$passed", "duration_ms", "order", "$labelShare.x"))
        asked["values"][f"{word[1:]} of {reference}"] = {word: reference}
    if draw.random() < 0.4:
        zones = ("UTC", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/St_Johns")
        asked["bucket"] = {"unit": draw.choice(("minute", "hour", "day", "week")), "timezone": draw.choice(zones)}
    if draw.random() < 0.4:
        asked["stage"]["$failRatio"] = {draw.choice(("$gt", "$lte", "$ne")): draw.choice((0.1, 0.7, None))}
    return asked


@pytest.fixture(params=["sqlite", "mongodb"])
def use_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Callable[[Store], Awaitable[None]]], None]:
    """Uses a store that is full of the sample."""
    databases: Databases | None = request.getfixturevalue("databases") if request.param == "mongodb" else None

    def run(use: Callable[[Store], Awaitable[None]]) -> None:
        async def opened() -> None:
            store = SqliteStore(tmp_path / "x.sqlite3") if databases is None else MongoStore(databases.url(tmp_path))
            await store.open()
            try:
                await store.write("default", sample())
                await use(store)
            finally:
                await store.close()

        asyncio.run(opened())

    return run


async def both(store: Store, asked: dict[str, Any]) -> tuple[Aggregated, Aggregated]:
    """An aggregation as it is worked out, and out of the stages themselves."""
    aggregation = parse_aggregation(asked, CATALOG)
    found = await aggregate(store, "default", aggregation)
    with mock.patch.object(type(store), "grouped", return_value=None):
        return found, await aggregate(store, "default", aggregation)


@pytest.mark.parametrize(("at_once", "entries"), [(200_000, 50), (7, 0)])
def test_groups_say_what_the_stages_say(use_store, monkeypatch, at_once, entries):
    """To the last digit, integers beyond a double too; in one go and in parts, off the index and off the stages."""
    monkeypatch.setattr(query_aggregate, "GROUPED_AT_ONCE", at_once)
    monkeypatch.setattr(query_aggregate, "FEW", min(query_aggregate.FEW, at_once))
    monkeypatch.setattr(mongo_grouping, "MOST_AT_ONCE", at_once)
    monkeypatch.setattr(sqlite_grouping, "ENTRIES_FOR_A_STAGE", entries)

    async def use(store: Store) -> None:
        draw, given = random.Random(at_once), 0
        real = type(store).grouped
        for _ in range(QUESTIONS):
            asked = question(draw)
            with mock.patch.object(type(store), "grouped", autospec=True, side_effect=real) as calls:
                found, expected = await both(store, asked)
                given += calls.call_count > 0
            assert found.rows == expected.rows, asked
            assert repr(found.rows) == repr(expected.rows), asked  # 1 is no 1.0
            assert found.coverage.matched == expected.coverage.matched
            assert found.coverage.complete
        assert given > QUESTIONS / 2

    use_store(use)


def test_a_budget_ends_after_the_latest_stages(use_store, monkeypatch):
    """The figures are those of the stages that started last, and the answer says that they are not of all."""
    monkeypatch.setattr(query_aggregate, "GROUPED_AT_ONCE", 10)
    asked = parse_aggregation({"values": {"n": {"$count": {}}, "s": {"$sum": "$passed"}}}, CATALOG)
    stages = [stage for stage in sample().stages.values() if "started_at" in stage]
    starts = sorted((stage["started_at"] for stage in stages), reverse=True)
    budget = next(place for place in range(25, len(starts)) if starts[place] < starts[place - 1])
    latest = [stage["metrics"]["passed"] for stage in stages if stage["started_at"] >= starts[budget - 1]]

    async def use(store: Store) -> None:
        found = await aggregate(store, "default", asked, document_budget=budget)
        assert found.rows[0]["values"] == {"n": budget, "s": sum(latest)}
        assert not found.coverage.complete

    use_store(use)


def test_rollups_of_few_stages_are_left_alone(use_store, monkeypatch):
    """Where reading rollups takes longer than reading their stages, the stages are read, with the same figures."""
    monkeypatch.setattr(query_aggregate, "FEW", 0)
    asked = parse_aggregation({"bucket": "day", "values": {"n": {"$count": {}}}}, CATALOG)

    async def use(store: Store) -> None:
        while await refresh(store, "default", until=END + 99 * HOUR_MS):
            pass
        found = await aggregate(store, "default", asked)
        assert found.rollups == 0
        monkeypatch.setattr(query_aggregate, "STAGES_FOR_A_ROLLUP", 0)
        out_of_rollups = await aggregate(store, "default", asked)
        assert out_of_rollups.rollups > 10
        assert out_of_rollups.rows == found.rows

    use_store(use)
