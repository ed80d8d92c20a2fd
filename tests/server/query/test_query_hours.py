"""Figures out of rollups against the same figures out of the stages, on both stores."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.mongodb import Databases
from tests.server.query.catalogs import catalog
from xray_server.documents import Document
from xray_server.query import aggregate as query_aggregate
from xray_server.query import hours
from xray_server.query.aggregate import Aggregated, aggregate
from xray_server.query.aggregate_parser import parse_aggregation
from xray_server.query.explain import explain_figures
from xray_server.query.fields import MetricCatalog
from xray_server.rollups import HOUR_MS, refresh
from xray_server.stores.base import Store, WriteBatch
from xray_server.stores.mongo import MongoStore
from xray_server.stores.sqlite import SqliteStore

CATALOG: MetricCatalog = catalog()
START = 1_793_491_200_000 + 17 * 60_000
"""Not the start of an hour."""

RUNS = 90
EVERY_MS = 90 * 60_000
END = START + RUNS * EVERY_MS


def make_batch(seed: int) -> WriteBatch:
    """Runs of several pipelines over some days, and stages that begin up to some hours after their runs."""
    draw = random.Random(seed)
    batch = WriteBatch()
    for number in range(RUNS):
        run: Document = {"id": f"00000000-0000-7000-8000-{number:012d}", "started_at": START + number * EVERY_MS}
        label, version = draw.choice(("a", "b", "é", None)), draw.choice(("1", "2", None))
        run |= {key: value for key, value in (("label", label), ("version", version)) if value is not None}
        batch.runs[run["id"]] = run
        for place in range(draw.randint(1, 5)):
            stage: Document = {
                "id": f"00000000-0000-7000-9000-{number * 10 + place:012d}",
                "run_id": run["id"],
                "pipeline": run,
                "type": draw.choice(("filtering", "scoring")),
                "metrics": {
                    "fail_ratio": draw.choice((0.1, 0.2, 0.7, 1, -3.5, 1e-9, None)),
                    "passed": draw.choice((0, 1, 2, 3, 1000)),
                    "label_share": draw.choice(({}, {"x": 0.1}, {"x": 0.3, "y.z": 1}, {"x": None})),
                },
            }
            if draw.random() < 0.9:
                stage["started_at"] = run["started_at"] + draw.choice((0, 1, 60_000, HOUR_MS - 1, 5 * HOUR_MS))
                if draw.random() < 0.3:
                    stage["started_at"] = stage["started_at"] // HOUR_MS * HOUR_MS
            if draw.random() < 0.8:
                stage["name"] = draw.choice(("x", "y"))
            batch.stages[stage["id"]] = stage
    return batch


def random_question(draw: random.Random) -> dict[str, Any]:
    """An aggregation that rollups may know; some ask for what they do not know."""
    stage: dict[str, Any] = {}
    if draw.random() < 0.5:
        stage["name"] = draw.choice(("x", {"$in": ["x", None]}, {"$ne": "x"}, {"$exists": False}, {"$regex": "^x"}))
    if draw.random() < 0.4:
        stage["type"] = draw.choice(("filtering", {"$not": {"$eq": "filtering"}}))
    if draw.random() < 0.2:
        stage["$or"] = [{"name": "y"}, {"pipeline.version": "1"}]
    if draw.random() < 0.5:
        moment = START + draw.randint(0, 40) * EVERY_MS // 2 + draw.choice((0, 1, 43 * 60_000))
        stage["started_at"] = {draw.choice(("$gte", "$gt")): moment}
        if draw.random() < 0.5:
            stage["started_at"][draw.choice(("$lt", "$lte"))] = END - draw.randint(0, 20) * EVERY_MS // 2
    elif draw.random() < 0.2:
        stage["started_at"] = {"$lt": END - 10 * HOUR_MS}
    pipeline = draw.choice(
        ({}, {}, {"label": "a"}, {"label": {"$in": ["a", "é"]}}, {"version": None}, {"label": "none"})
    )
    names = ("pipeline.label", "name", "type", "pipeline.version")
    values: dict[str, Any] = {"n": {"$count": {}}}
    for word in draw.sample(("$sum", "$avg", "$min", "$max"), 3):
        metric = draw.choice(("$failRatio", "$passed", "$labelShare.x", "$labelShare.y.z"))
        values[f"{word[1:]} {metric[1:]}"] = {word: metric}
    asked = {"pipeline": pipeline, "stage": stage, "group_by": draw.sample(names, draw.randint(0, 2)), "values": values}
    if draw.random() < 0.6:
        zone = draw.choice(("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"))
        asked["bucket"] = {"unit": draw.choice(("hour", "day", "week", "month")), "timezone": zone}
    return asked


@pytest.fixture(autouse=True)
def no_stages_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """The samples are so small that they would be read without looking for rollups, and these would not pay."""
    monkeypatch.setattr(query_aggregate, "FEW", 0)
    monkeypatch.setattr(query_aggregate, "STAGES_FOR_A_ROLLUP", 0)


@pytest.fixture(params=["sqlite", "mongodb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "sqlite":
        return SqliteStore(tmp_path / "xray.sqlite3")
    databases: Databases = request.getfixturevalue("databases")
    return MongoStore(databases.url(tmp_path))


async def both(store: Store, asked: dict[str, Any]) -> tuple[Aggregated, Aggregated]:
    """An aggregation as it is worked out, and out of the stages alone."""
    aggregation = parse_aggregation(asked, CATALOG)
    found = await aggregate(store, "default", aggregation)
    with mock.patch("xray_server.query.hours.plan", return_value=None):
        return found, await aggregate(store, "default", aggregation)


async def hold_equal(store: Store, seed: int, count: int = 30) -> int:
    """How many rollups were read for answers that are the stages' own."""
    draw, rollups = random.Random(seed), 0
    for _ in range(count):
        asked = random_question(draw)
        found, expected = await both(store, asked)
        assert found.rows == expected.rows, asked
        assert found.coverage.matched == expected.coverage.matched
        assert found.coverage.complete
        assert expected.rollups == 0
        assert (found.rollups == 0) or (found.coverage.scanned < expected.coverage.scanned), asked
        rollups += found.rollups
    return rollups


def test_rollups_say_what_the_stages_say(store: Store) -> None:
    """Fresh, with some hours changed since, and after the oldest runs were removed."""

    async def use() -> None:
        await store.open()
        try:
            batch = make_batch(1)
            await store.write("default", batch)
            while await refresh(store, "default", until=END + 99 * HOUR_MS):
                pass
            assert await hold_equal(store, 1) > 200
            changed = {key: stage for key, stage in make_batch(2).stages.items() if key.endswith("3")}
            await store.write(
                "default", WriteBatch(stages={key: stage | {"name": "x"} for key, stage in changed.items()})
            )
            assert await hold_equal(store, 2) > 200
            while (await store.remove_runs("default", before=START + 20 * EVERY_MS + 1, limit=5)).runs:
                pass
            assert await hold_equal(store, 3) > 100
        finally:
            await store.close()

    asyncio.run(use())


def test_what_rollups_do_not_know_is_scanned(tmp_path: Path) -> None:
    """Percentiles, weights, other fields and conditions, halves of hours; and figures that are too large for them."""
    store = SqliteStore(tmp_path / "xray.sqlite3")
    asked: list[dict[str, Any]] = [
        {"values": {"p": {"$p50": "$passed"}}},
        {"values": {"n": {"$weightedCount": {}}}},
        {"values": {"n": {"$sum": "duration_ms"}}},
        {"group_by": ["run_id"]},
        {"group_by": ["status"]},
        {"bucket": "minute"},
        {"bucket": {"unit": "hour", "timezone": "Asia/Kolkata"}},
        {"bucket": {"unit": "day", "timezone": "Asia/Kolkata"}},
        {"stage": {"$passed": {"$gt": 0}}},
        {"stage": {"$or": [{"started_at": {"$gt": START}}, {"name": "x"}]}},
        {"stage": {"started_at": {"$in": [START, START + 1]}}},
        {"stage": {"started_at": START}},
        {"pipeline": {"started_at": {"$gt": START}}},
        {"pipeline": {"environment": None}},
        {"stages": [{"type": "filtering"}]},
        {"candidate": {}},
        {"stage": {"started_at": {"$gte": END - HOUR_MS}}},
    ]

    async def use() -> None:
        await store.open()
        try:
            await store.write("default", make_batch(1))
            while await refresh(store, "default", until=END + 99 * HOUR_MS):
                pass
            assert (await both(store, {}))[0].rollups > 50
            for each in asked:
                found, expected = await both(store, each)
                assert (found.rollups, found.rows) == (0, expected.rows), each
            stage = next(iter(make_batch(1).stages.values()))
            large = stage | {"id": "00000000-0000-7000-9000-0000000f0000", "metrics": {"passed": 2**53 + 1}}
            large["started_at"] = START + 50 * HOUR_MS
            await store.write("default", WriteBatch(stages={large["id"]: large}))
            found, expected = await both(store, {"values": {"s": {"$sum": "$passed"}}})
            assert found.rows == expected.rows
            assert found.rows[0]["values"]["s"] > 2**53
            assert (await both(store, {}))[0].rollups > 50
        finally:
            await store.close()

    asyncio.run(use())


def test_many_changed_hours_are_not_computed_for_a_question(tmp_path: Path) -> None:
    """Nothing bounds that, so the stages are scanned, which the budget bounds; the explanation says so."""
    store = SqliteStore(tmp_path / "xray.sqlite3")

    async def use() -> None:
        await store.open()
        try:
            await store.write("default", make_batch(1))
            with mock.patch("xray_server.query.hours.MOST_DIRTY", 20):
                found, expected = await both(store, {})
                assert (found.rollups, found.rows) == (0, expected.rows)
                explained = await explain_figures(store, "default", parse_aggregation({}, CATALOG))
                assert any("do not pay" in step for step in explained.steps)
                while await refresh(store, "default", until=END + 99 * HOUR_MS):
                    pass
                assert (await both(store, {}))[0].rollups > 50
                explained = await explain_figures(store, "default", parse_aggregation({}, CATALOG))
                assert any("come out of rollups" in step for step in explained.steps)
                asked = parse_aggregation({"values": {"p": {"$p50": "$passed"}}}, CATALOG)
                explained = await explain_figures(store, "default", asked)
                assert any("Rollups do not know" in step for step in explained.steps)
                assert explained.question == "p50 of $passed over stages."
        finally:
            await store.close()

    asyncio.run(use())


def test_a_budget_ends_it_before_the_rollups(tmp_path: Path) -> None:
    """And the answer says that it is not complete."""
    store = SqliteStore(tmp_path / "xray.sqlite3")

    async def use() -> None:
        await store.open()
        try:
            await store.write("default", make_batch(1))
            while await refresh(store, "default", until=END + 99 * HOUR_MS):
                pass
            found = await aggregate(store, "default", parse_aggregation({}, CATALOG), time_budget_s=0)
            assert not found.coverage.complete
        finally:
            await store.close()

    asyncio.run(use())


def test_the_edges_are_those_of_whole_hours() -> None:
    """Of the bounds that a question gives, each in milliseconds."""
    stage = {"$and": [{"started_at": {"$gt": 5}}, {"started_at": {"$gte": 4, "$lte": 9}}], "name": "x"}
    asked = hours.asked_of(parse_aggregation({"stage": stage}, CATALOG))
    assert asked is not None
    assert (asked.since, asked.until) == (6, 10)


def test_a_sender_whose_clock_is_wrong_keeps_nobody_waiting(tmp_path: Path) -> None:
    """The empty hours of centuries are not looked through for rollups: the stages are scanned."""
    store = SqliteStore(tmp_path / "xray.sqlite3")

    async def use() -> None:
        await store.open()
        try:
            await store.write("default", make_batch(1))
            while await refresh(store, "default", until=END + 99 * HOUR_MS):
                pass
            early: Document = {"id": "00000000-0000-7000-8000-0000000f0000", "started_at": -60_000_000_000_000}
            await store.write("default", WriteBatch(runs={early["id"]: early}))
            found, expected = await both(store, {})
            assert (found.rollups, found.rows) == (0, expected.rows)
        finally:
            await store.close()

    asyncio.run(use())


def test_few_stages_are_read_and_no_rollups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where few stages satisfy the conditions, they are counted themselves, with the same figures; one more is many."""

    async def run() -> None:
        store = SqliteStore(tmp_path / "xray.sqlite3")
        await store.open()
        try:
            batch = make_batch(3)
            await store.write("default", batch)
            while await refresh(store, "default", until=END + 99 * HOUR_MS):
                pass
            asked = parse_aggregation({"bucket": "day", "values": {"n": {"$count": {}}}}, CATALOG)
            out_of_rollups = await aggregate(store, "default", asked)
            assert out_of_rollups.rollups > 50
            for few, rollups in ((len(batch.stages), 0), (len(batch.stages) - 1, out_of_rollups.rollups)):
                monkeypatch.setattr(query_aggregate, "FEW", few)
                found = await aggregate(store, "default", asked)
                assert (found.rows, found.rollups) == (out_of_rollups.rows, rollups)
                assert found.coverage.matched == len(batch.stages)
        finally:
            await store.close()

    asyncio.run(run())
