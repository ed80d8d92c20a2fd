"""Summaries and rollups: exact sums, quantiles within their bound, the same in any order and grouping."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray.exceptions import StoreError
from xray_server.conformance.rollups import LATER, NOON, a_bucket, a_stage, batch_of, random_parts
from xray_server.documents import merge_into
from xray_server.query.ast import Scan
from xray_server.rollups import HOUR_MS, MAX_METRICS, bucket_of, changed_buckets, merge_rollups, refresh, roll_up
from xray_server.stores.base import Row
from xray_server.stores.sqlite import SqliteStore
from xray_server.summaries import ACCURACY, MAX_BINS, mean, merge_summaries, quantile, summarize
from xray_server.testing_data import PROJECT

FINITE = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.lists(st.one_of(FINITE, st.integers(-(2**63), 2**63 - 1), st.sampled_from([0, -0.0, 0.1, 1e-300, 1e16])))
QUANTILES = st.lists(st.floats(0, 1), min_size=1)


@given(values=VALUES, qs=QUANTILES)
def test_quantiles_are_within_their_bound(values: list[float], qs: list[float]):
    """Of positive numbers, negative ones, zeros and all together, against the numbers in order."""
    summary = summarize(values)
    ordered = sorted(map(float, values))
    for q in (*qs, 0, 0.5, 1):
        found = quantile(summary, q)
        if not ordered:
            assert found is None
            continue
        exact = ordered[math.floor(q * (len(ordered) - 1))]
        assert found is not None
        assert abs(Fraction(found) - Fraction(exact)) <= Fraction(ACCURACY * (1 + 1e-9)) * abs(Fraction(exact))
        assert ordered[0] <= found <= ordered[-1]


@given(values=VALUES, nulls=st.integers(0, 3))
def test_counts_bounds_and_sums_are_exact(values: list[float], nulls: int):
    """The sum is the exact one rounded once, with what the rounding left out beside it."""
    summary = summarize([*values, *[None] * nulls])
    assert (summary["count"], summary["nulls"]) == (len(values), nulls)
    if not values:
        assert mean(summary) is None
        return
    assert (summary["min"], summary["max"]) == (min(map(float, values)), max(map(float, values)))
    exact = sum(Fraction(float(value)) for value in values)
    if summary["sum"] is None:
        assert abs(exact) > 1.7e308
        assert mean(summary) is None
    else:
        assert sum(map(Fraction, (summary["sum"], *summary["rest"]))) == exact
        assert summary["sum"] == exact.numerator / exact.denominator
        assert mean(summary) == summary["sum"] / len(values)


@given(
    values=st.lists(st.one_of(st.none(), st.floats(-1e300, 1e300))),
    cuts=st.lists(st.integers(0, 20)),
    seed=st.randoms(),
)
def test_any_order_and_grouping_give_the_same(values: list[float | None], cuts: list[int], seed: random.Random):
    """Summaries of parts, put together, are the summary of the whole; also after a journey as JSON."""
    whole = summarize(values)
    mixed = list(values)
    seed.shuffle(mixed)
    edges = [0, *sorted(min(cut, len(mixed)) for cut in cuts), len(mixed)]
    parts = [summarize(mixed[start:stop]) for start, stop in itertools.pairwise(edges)]
    assert merge_summaries(json.loads(json.dumps(parts))) == whole


def test_a_sketch_is_bounded_and_keeps_its_high_end():
    """Numbers over 600 powers of ten: bins stay within the bound, high quantiles within theirs, in any order."""
    draw = random.Random(3)
    values = [sign * 10.0 ** draw.uniform(-300, 300) for _ in range(4000) for sign in (1, -1)]
    summary = summarize(values)
    assert len(summary["positive"]) == len(summary["negative"]) == MAX_BINS
    assert summary["count"] == 8000
    assert sum(count for _, count in summary["positive"]) == 4000
    ordered = sorted(values)
    for q in (0.01, 0.1, 0.9, 0.99):
        exact = ordered[math.floor(q * 7999)]
        found = quantile(summary, q)
        assert found is not None
        assert abs(found - exact) <= ACCURACY * 1.0000001 * abs(exact)
    draw.shuffle(values)
    assert merge_summaries([summarize(values[:1000]), summarize(values[1000:])]) == summary


def test_a_bucket_is_an_hour_of_one_kind_of_stage():
    """Hours are whole in UTC, also before 1970; without a start there is no bucket."""
    assert bucket_of(a_stage(1)) == a_bucket()
    assert bucket_of({"started_at": -1}) is not None
    assert bucket_of({"started_at": -1}).hour == -HOUR_MS
    assert bucket_of({"started_at": 0}).hour == 0
    assert bucket_of({"name": "filter"}) is None


def test_only_what_a_rollup_says_puts_it_out_of_date():
    """Metrics, status and the bucket's own words do; a note does not."""
    before = a_stage(1)
    assert list(changed_buckets(before, {**before, "metadata": {"a": 1}})) == []
    assert list(changed_buckets({}, before)) == [a_bucket()]
    assert list(changed_buckets(before, {**before, "status": "failure"})) == [a_bucket()]
    assert list(changed_buckets(before, {**before, "metrics": {}})) == [a_bucket()]
    assert list(changed_buckets(before, {**before, "name": "b"})) == [a_bucket(name="b"), a_bucket()]
    assert list(changed_buckets({**before, "started_at": None}, before)) == [a_bucket()]


def test_rollups_count_tables_nulls_and_failures():
    """Each entry of a table is a metric; what is no number is none; a null is counted as one."""
    metrics = {"failed": 2, "margin": None, "label_counts": {"a.b": 3, "c": None, "d": "x"}, "edges": [1], "odd": True}
    (rollup,) = roll_up([a_stage(1, metrics=metrics), a_stage(2, status="failure", metrics={"failed": 4})])
    assert (rollup.stage_count, rollup.failure_count) == (2, 1)
    assert set(rollup.metrics) == {"failed", "margin", "label_counts.a.b", "label_counts.c"}
    assert rollup.metrics["margin"] == {"count": 0, "nulls": 1}
    assert (rollup.metrics["failed"]["sum"], rollup.metrics["failed"]["max"]) == (6, 4)


def test_rollups_of_several_buckets_merge():
    """The metrics of many buckets together are those of all of their stages in one."""
    draw = random.Random(5)
    stages: dict[str, dict[str, object]] = {}
    for part in random_parts(draw, 80):
        merge_into(stages.setdefault(part["id"], {}), part)
    apart = roll_up(stages.values())
    assert len(apart) > 5
    same = [{**stage, "pipeline": {}, "name": "n", "started_at": NOON} for stage in stages.values()]
    (together,) = roll_up(same)
    assert merge_rollups(apart) == together.metrics


def test_a_rollup_has_a_bounded_number_of_metrics():
    """Where tables have too many names, those that most stages have are kept, whatever the order."""
    stages = [a_stage(n, metrics={"t": {f"own{n}.{i}": 1 for i in range(700)} | {"common": 1}}) for n in range(4)]
    (rollup,) = roll_up(stages)
    assert len(rollup.metrics) == MAX_METRICS
    assert rollup.metrics["t.common"]["count"] == 4
    assert roll_up(reversed(stages)) == [rollup]


def test_nothing_goes_on_reading_after_an_error(tmp_path):
    """Several spans are read at once; where one of them cannot be read, the others end with it."""
    begun, ended = [], []

    class Failing(SqliteStore):
        async def scan(self, project: str, scan: Scan) -> list[Row]:
            begun.append(scan)
            if len(begun) == 2:
                raise StoreError("The data cannot be read.")
            await asyncio.sleep(0.01)
            ended.append(scan)
            return []

    async def use() -> None:
        store = Failing(tmp_path / "rollups.sqlite3")
        await store.open()
        try:
            await store.write(PROJECT, batch_of(*(a_stage(number, hour=number * 9) for number in range(9))))
            with pytest.raises(StoreError):
                await refresh(store, PROJECT, until=LATER)
            await asyncio.sleep(0.1)
        finally:
            await store.close()

    asyncio.run(use())
    assert len(begun) <= 3, "one may begin before the others are told"
    assert not ended
