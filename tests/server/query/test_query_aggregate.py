"""Aggregations against figures worked out another way."""

from __future__ import annotations

import asyncio
import datetime as dt
import math
import random
from fractions import Fraction
from typing import Any
from unittest import mock

import pytest

from tests.server.query.catalogs import catalog
from tests.server.query.memory_store import MemoryStore
from tests.server.query.test_query_run import IDS, ROWS, one_stage
from xray.exceptions import QueryError
from xray_server.query.aggregate import Aggregated, aggregate
from xray_server.query.aggregate_parser import parse_aggregation
from xray_server.query.buckets import Bucket, parse_bucket

CATALOG = catalog()
DAY_MS = 86_400_000


def store_of(stages: list[dict[str, Any]]) -> MemoryStore:
    run = {"id": "00000000-0000-7000-8000-000000000000", "label": "a"}
    full = [
        {"id": f"00000000-0000-7000-8000-{number:012d}", "run_id": run["id"], "pipeline": run} | stage
        for number, stage in enumerate(stages, 1)
    ]
    return MemoryStore([run], full, {})


def work_out(store: MemoryStore, asked: dict[str, Any], **budgets: Any) -> Aggregated:
    return asyncio.run(aggregate(store, "default", parse_aggregation(asked, CATALOG), **budgets))


def in_order(numbers: list[Fraction], q: Fraction) -> Fraction:
    """The quantile between the neighbours, in exact numbers."""
    ordered = sorted(numbers)
    place = q * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


@pytest.mark.parametrize("seed", range(10))
def test_every_figure_is_that_of_exact_arithmetic(seed: int) -> None:
    """For each group: counts exactly, sums and averages and quantiles of what is a number, to the last digits."""
    draw = random.Random(seed)
    stages = [
        {
            "name": draw.choice(["x", "y", None]),
            "type": draw.choice(["filtering", "scoring"]),
            "started_at": draw.choice([None, 5, DAY_MS - 1, DAY_MS, 40 * DAY_MS]),
            "metrics": {"fail_ratio": draw.choice([0.1, 0.2, 0.7, 1, -3.5, 1e17, None, "odd", True])},
        }
        for _ in range(draw.choice([1, 3, 200]))
    ]
    asked = {
        "group_by": ["name", "type"],
        "bucket": "day",
        "values": {
            "n": {"$count": {}},
            **{word: {f"${word}": "$failRatio"} for word in ("sum", "avg", "min", "max", "p50", "p90", "p99")},
        },
    }
    found = work_out(store_of(stages), asked)
    expected: dict[tuple[Any, ...], list[Any]] = {}
    for stage in stages:
        start = stage["started_at"]
        day = None if start is None else str(dt.date(1970, 1, 1) + dt.timedelta(days=start // DAY_MS))
        expected.setdefault((stage["name"], stage["type"], day), []).append(stage["metrics"]["fail_ratio"])
    assert found.coverage.matched == len(stages)
    assert found.coverage.complete
    assert len(found.rows) == len(expected)
    for row in found.rows:
        bucket = row["bucket"]
        assert bucket is None or bucket.endswith("T00:00:00+00:00")
        values = expected.pop((row["group"]["name"], row["group"]["type"], bucket and bucket[:10]))
        exact = [Fraction(value) for value in values if isinstance(value, int | float) and value is not True]
        figures = row["values"]
        assert figures["n"] == len(values)
        assert figures["sum"] == float(sum(exact))
        if not exact:
            assert {figures[word] for word in ("avg", "min", "max", "p50", "p90", "p99")} == {None}
            continue
        assert (figures["min"], figures["max"]) == (float(min(exact)), float(max(exact)))
        assert figures["avg"] == pytest.approx(float(sum(exact) / len(exact)), rel=1e-15)
        for word, q in (("p50", 50), ("p90", 90), ("p99", 99)):
            assert figures[word] == pytest.approx(float(in_order(exact, Fraction(q, 100))), rel=1e-12), word


def test_integers_are_summed_as_integers() -> None:
    """Beyond what a float keeps exactly."""
    big = 2**53 + 1
    store = store_of([{"metrics": {"passed": big}}, {"metrics": {"passed": 2}}])
    assert work_out(store, {"values": {"s": {"$sum": "$passed"}}}).rows == [{"group": {}, "values": {"s": big + 2}}]


def test_nothing_found_is_still_an_answer() -> None:
    """Without groups there is one row, with them none."""
    empty = store_of([])
    asked = {"values": {"n": {"$count": {}}, "s": {"$sum": "$passed"}, "a": {"$avg": "$passed"}}}
    assert work_out(empty, asked).rows == [{"group": {}, "values": {"n": 0, "s": 0, "a": None}}]
    assert work_out(empty, asked | {"group_by": ["name"]}).rows == []


@pytest.mark.parametrize(
    ("unit", "zone", "moment", "begin"),
    [
        ("day", "UTC", "2026-11-01T23:59:59.999+00:00", "2026-11-01T00:00:00+00:00"),
        ("day", "Asia/Tokyo", "2026-11-01T15:00:00+00:00", "2026-11-02T00:00:00+09:00"),
        ("day", "Asia/Kolkata", "2026-11-01T18:29:59+00:00", "2026-11-01T00:00:00+05:30"),
        ("hour", "Asia/Kolkata", "2026-11-01T18:29:59+00:00", "2026-11-01T23:00:00+05:30"),
        # Clocks in Berlin went back at 01:00 UTC that night: the same hour twice, and a day of 25 hours.
        ("hour", "Europe/Berlin", "2026-10-25T00:30:00+00:00", "2026-10-25T02:00:00+02:00"),
        ("hour", "Europe/Berlin", "2026-10-25T01:30:00+00:00", "2026-10-25T02:00:00+01:00"),
        ("day", "Europe/Berlin", "2026-10-25T22:30:00+00:00", "2026-10-25T00:00:00+02:00"),
        # No midnight that night in Santiago: clocks went from 00:00 to 01:00.
        ("day", "America/Santiago", "2026-09-06T12:00:00+00:00", "2026-09-06T01:00:00-03:00"),
        ("week", "UTC", "2026-11-01T12:00:00+00:00", "2026-10-26T00:00:00+00:00"),
        ("week", "Europe/Berlin", "2026-10-25T22:00:00+00:00", "2026-10-19T00:00:00+02:00"),
        ("month", "America/New_York", "2026-11-01T03:00:00+00:00", "2026-10-01T00:00:00-04:00"),
        ("minute", "UTC", "1969-12-31T23:59:59.999+00:00", "1969-12-31T23:59:00+00:00"),
    ],
)
def test_where_a_bucket_begins(unit: str, zone: str, moment: str, begin: str) -> None:
    """On the clocks of the zone, whatever they do."""
    milliseconds = round(dt.datetime.fromisoformat(moment).timestamp() * 1000)
    assert Bucket(unit, zone).start_of(milliseconds) == begin


def test_a_moment_that_no_calendar_has_is_in_no_bucket() -> None:
    """It breaks nothing."""
    assert Bucket("day").start_of(2**62) is None
    assert Bucket("week", "Asia/Tokyo").start_of(-62_135_596_800_000) is None
    assert Bucket("day").start_of(None) is None


def test_conditions_narrow_and_groups_are_ordered_and_limited() -> None:
    """By a figure, by the group, by time; the limit is one of groups."""
    stages = [{"name": name, "type": "filtering", "metrics": {"passed": n}} for n, name in enumerate("abcab")]
    stages.append({"name": "z", "type": "raw"})
    asked = {"stage": {"type": "filtering"}, "group_by": ["name"], "values": {"s": {"$sum": "$passed"}}}
    store = store_of(stages)

    def names(**more: Any) -> list[str]:
        return [row["group"]["name"] for row in work_out(store, asked | more).rows]

    assert names() == ["a", "b", "c"]
    assert names(sort={"s": -1}) == ["b", "a", "c"]
    assert names(sort={"name": -1}, limit=2) == ["c", "b"]
    assert names(stages=[{"name": "z"}]) == ["a", "b", "c"]
    assert names(stages=[{"name": "q"}]) == []


def test_candidates_can_be_asked_for() -> None:
    """A stage counts where it has such a candidate."""
    store = one_stage(ROWS)
    for verdict, count in (("failed", 1), ("passed", 0)):
        found = work_out(store, {"candidate": {"verdict": verdict}})
        assert found.rows == [{"group": {}, "values": {"count": count}}]
    assert IDS


def test_a_budget_ends_it_and_is_said() -> None:
    """The figures are then of what was read, and the coverage says that this is not all."""
    store = store_of([{"metrics": {"passed": 1}, "started_at": n} for n in range(20)])
    with mock.patch("xray_server.query.search.MAX_BATCH", 5):
        found = work_out(store, {"values": {"n": {"$count": {}}}}, document_budget=5)
        assert not found.coverage.complete
        assert 0 < found.rows[0]["values"]["n"] < 20
        assert not work_out(store, {}, time_budget_s=0).coverage.complete
        assert work_out(store, {}).coverage.complete


def test_weighted_figures_count_a_stage_for_all_that_its_run_stands_for() -> None:
    """A run that was kept one in four stands for four; where the rate is not known, or is none, for itself."""
    rates: list[Any] = [0.25, 0.25, 1, None, 0.1, "odd", 0, 3]
    runs = [
        {"id": f"00000000-0000-7000-9000-{number:012d}", "label": "a"} | ({} if rate is None else {"sample_rate": rate})
        for number, rate in enumerate(rates)
    ]
    values = [1, 2, 3, None, 5, 6, 7, 8]
    stages = [
        {
            "id": f"00000000-0000-7000-8000-{number:012d}",
            "run_id": f"00000000-0000-7000-9000-{number % 9:012d}",
            "name": "xy"[number % 2],
            "started_at": number,
            "metrics": {"passed": values[number % 8]},
        }
        for number in range(72)
    ]
    store = MemoryStore(runs, stages, {})
    weights = {run["id"]: Fraction(4 if number < 2 else 10 if number == 4 else 1) for number, run in enumerate(runs)}
    asked = {
        "group_by": ["name"],
        "values": {
            "raw": {"$count": {}},
            "n": {"$weightedCount": {}},
            "s": {"$weightedSum": "$passed"},
            "a": {"$weightedAvg": "$passed"},
            "plain": {"$sum": "$passed"},
        },
    }
    with mock.patch("xray_server.query.aggregate._AT_ONCE", 5):
        found = work_out(store, asked)
    assert [row["group"]["name"] for row in found.rows] == ["x", "y"]
    for row in found.rows:
        own = [stage for stage in stages if stage["name"] == row["group"]["name"]]
        weighed = [(weights.get(stage["run_id"], Fraction(1)), stage["metrics"]["passed"]) for stage in own]
        numbers = [(weight, value) for weight, value in weighed if value is not None]
        total = sum(weight * value for weight, value in numbers)
        assert row["values"] == {
            "raw": len(own),
            "n": float(sum(weight for weight, _ in weighed)),
            "s": float(total),
            "a": pytest.approx(float(total / sum(weight for weight, _ in numbers)), rel=1e-15),
            "plain": sum(value for _, value in numbers),
        }
    nothing = work_out(store, asked | {"group_by": [], "stage": {"name": "z"}}).rows
    assert nothing[0]["values"] == {"raw": 0, "n": 0, "s": 0, "a": None, "plain": 0}


def test_too_many_groups_are_refused() -> None:
    """Rather than held in memory without end."""
    store = store_of([{"name": str(n)} for n in range(20)])
    with mock.patch("xray_server.query.figures.MAX_GROUPS", 10), pytest.raises(QueryError) as caught:
        work_out(store, {"group_by": ["name"]})
    assert (caught.value.code, caught.value.path) == ("too_large", "group_by")


@pytest.mark.parametrize(
    ("asked", "path", "said"),
    [
        ([], None, "JSON object"),
        ({"group": ["name"]}, "group", "'group_by'"),
        ({"group_by": {"name": 1}}, "group_by", "a list"),
        ({"group_by": ["nmae"]}, "group_by[0]", "'name'"),
        ({"group_by": [7]}, "group_by[0]", "as a string"),
        ({"group_by": ["$failRatio"]}, "group_by[0]", "too many values"),
        ({"group_by": ["started_at"]}, "group_by[0]", "'bucket'"),
        ({"group_by": ["name"] * 6}, "group_by", "at most 5"),
        ({"bucket": "dya"}, "bucket", "'day'"),
        ({"bucket": {"unit": "fortnight"}}, "bucket.unit", "minute, hour"),
        ({"bucket": {"unit": "day", "zone": "UTC"}}, "bucket.zone", "no 'zone'"),
        ({"bucket": {"unit": "day", "timezone": "Europe/Berlni"}}, "bucket.timezone", "'Europe/Berlin'"),
        ({"bucket": {"unit": "day", "timezone": "../../etc/passwd"}}, "bucket.timezone", "no time zone"),
        ({"bucket": {"unit": "day", "timezone": 5}}, "bucket.timezone", "no time zone"),
        ({"bucket": 5}, "bucket", "unit of time"),
        ({"values": []}, "values", "an object"),
        ({"values": {}}, "values", "an object"),
        ({"values": {"x": "$count"}}, "values.x", "one operator"),
        ({"values": {"x": {"$median": "$failRatio"}}}, "values.x.$median", "$p50"),
        ({"values": {"x": {"$avg": "$failRato"}}}, "values.x.$avg", "'$failRatio'"),
        ({"values": {"x": {"$avg": "name"}}}, "values.x.$avg", "no number"),
        ({"values": {"x": {"$avg": 5}}}, "values.x.$avg", "takes a metric"),
        ({"values": {"x": {"$count": "name"}}}, "values.x.$count", "counts stages"),
        ({"values": {"x": {"$weightedCount": "name"}}}, "values.x.$weightedCount", "counts stages"),
        ({"values": {"x": {"$weightedAvg": {}}}}, "values.x.$weightedAvg", "takes a metric"),
        ({"values": {"x": {"$weightedMax": "$passed"}}}, "values.x.$weightedMax", "'$weighted"),
        ({"group_by": ["name"], "values": {"name": {"$count": {}}}}, "values.name", "Two columns"),
        ({"sort": {"n": 1}}, "sort.n", "count"),
        ({"sort": {"count": 2}}, "sort.count", "1 (ascending)"),
        ({"sort": []}, "sort", "an object"),
        ({"limit": 0}, "limit", "1 to 10000"),
        ({"stage": {"$failRatio": {"$gtt": 1}}}, "stage.$failRatio.$gtt", "'$gt'"),
    ],
)
def test_errors_name_the_place(asked: Any, path: str | None, said: str) -> None:
    """And what would be right."""
    with pytest.raises(QueryError) as caught:
        parse_aggregation(asked, CATALOG)
    assert caught.value.path == path
    assert said in f"{caught.value.message} {caught.value.hint}"


def test_a_bucket_has_a_short_form() -> None:
    """The unit alone, in UTC."""
    assert parse_bucket("day") == parse_bucket({"unit": "day"}) == Bucket("day", "UTC")
