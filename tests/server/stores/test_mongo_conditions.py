"""Random conditions: what the MongoDB store's filters let through, against the evaluator."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.mongodb import Databases
from tests.server.stores.test_sqlite_conditions import (
    JSON,
    METRICS,
    SCALARS,
    STAGES,
    conditions,
    has_strange_values,
    sample_of_stages,
)
from xray_server.query import ast
from xray_server.query.evaluate import matches
from xray_server.stores.base import WriteBatch
from xray_server.stores.mongo import MongoStore
from xray_server.testing_data import PROJECT, ids, sample_runs

few = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def scan(tmp_path_factory, mongodb_uri):
    """A function that scans a store with the sample."""
    databases = Databases(mongodb_uri)
    with asyncio.Runner() as runner:
        store = MongoStore(databases.url(tmp_path_factory.mktemp("store")))
        runner.run(store.open())
        runner.run(store.write(PROJECT, WriteBatch(runs=sample_runs(), stages=sample_of_stages())))
        yield lambda scan: ids(runner.run(store.scan(PROJECT, scan)))
        runner.run(store.close())
    databases.drop()


@few
@given(condition=conditions(SCALARS + METRICS[:3]))
def test_scalar_fields_and_metrics_are_exact(scan, condition):
    """On scalar fields, and on metrics that are numbers, a scan finds exactly what the evaluator says."""
    expected = [stage["id"] for stage in STAGES.values() if matches(condition, stage)]
    found = scan(ast.Scan("stages", stage=condition))
    assert set(expected) <= set(found)
    if not has_strange_values(condition):
        assert found == expected


@few
@given(condition=conditions(SCALARS[1:3] + METRICS + JSON))
def test_nothing_that_matches_is_left_out(scan, condition):
    """Whatever a condition reaches into, however it is nested in complements, a scan lacks no match."""
    expected = {stage["id"] for stage in STAGES.values() if matches(condition, stage)}
    assert expected <= set(scan(ast.Scan("stages", stage=condition)))
    of_runs = {STAGES[stage_id]["run_id"] for stage_id in expected}
    assert of_runs <= set(scan(ast.Scan("runs", stage=condition)))


@few
@given(
    condition=conditions(METRICS + SCALARS),
    descending=st.booleans(),
    reference=st.sampled_from(METRICS[:3]),
    limit=st.integers(1, 9),
)
def test_a_metrics_order_can_be_gone_through_in_steps(scan, condition, descending, reference, limit):
    """Sorted by a metric, in steps of any size, a scan finds the same stages as sorted by id, each once."""
    sort = (ast.SortKey(reference, descending), ast.SortKey(ast.Field(("id",))))
    found, after = [], None
    while True:
        step = scan(ast.Scan("stages", stage=condition, sort=sort, after=after, limit=limit))
        found += step
        if len(step) < limit:
            break
        after = tuple(value_of(STAGES[step[-1]], key.reference) for key in sort)
    assert sorted(found) == scan(ast.Scan("stages", stage=condition))


def value_of(stage, reference):
    if isinstance(reference, ast.Field):
        return stage[reference.path[0]]
    value = stage["metrics"].get(reference.name)
    return value.get(reference.key) if reference.key and isinstance(value, dict) else value
