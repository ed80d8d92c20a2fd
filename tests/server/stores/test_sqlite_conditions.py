"""Random conditions: what the compiler lets through, against the evaluator."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray.stage_types.base import Columns
from xray_server.pages import paginate
from xray_server.query import ast
from xray_server.query.evaluate import matches
from xray_server.stores.base import WriteBatch
from xray_server.stores.sqlite import SqliteStore, paths
from xray_server.testing_data import PROJECT, ids, sample_runs, sample_stages

TEXTS = st.sampled_from(["filtering", "stage 3", "pipeline 1", "ads", "a", "t1", "", 'a"b', "\ud800", "\U0001f600"])
NUMBERS = st.sampled_from([0, 1, 2, 2.5, 0.4, 7, -1, 2**63 - 1, 2**70, 1e308, 1_800_000_000_003])
ANY_VALUE = st.one_of(TEXTS, NUMBERS, st.none(), st.booleans(), st.just([]), st.just(["a", "t1"]), st.just({"n": 1}))

SCALARS = [
    ast.Field(path)
    for path in (
        ("id",),
        ("type",),
        ("name",),
        ("order",),
        ("duration_ms",),
        ("pipeline", "label"),
        ("pipeline", "key"),
    )
]
METRICS = [
    ast.Metric("fail_ratio"),
    ast.Metric("failed"),
    ast.Metric("label_counts", "price.too high"),
    ast.Metric("label_counts"),
    ast.Metric("histogram"),
    ast.Metric("histogram", "edges"),
    ast.Metric("odd"),
    ast.Metric("odd", "a"),
]
JSON = [
    ast.Field(path)
    for path in (
        ("metadata", "team"),
        ("metadata", 'a"b'),
        ("metadata", ""),
        ("metadata", "deep", "x"),
        ("capture", "kept"),
    )
]


def conditions(references):
    operators = st.one_of(
        st.builds(ast.Compare, st.sampled_from(["eq", "gt", "gte", "lt", "lte"]), ANY_VALUE),
        st.builds(ast.In, st.lists(ANY_VALUE, max_size=3).map(tuple)),
        st.builds(ast.Exists, st.booleans()),
    )
    tests = st.builds(ast.Test, st.sampled_from(references), operators)
    return st.recursive(
        tests,
        lambda inner: st.one_of(
            st.builds(ast.And, st.lists(inner, max_size=3).map(tuple)),
            st.builds(ast.Or, st.lists(inner, max_size=3).map(tuple)),
            st.builds(ast.Not, inner),
        ),
        max_leaves=6,
    )


def sample_of_stages():
    """Stages with more oddities than senders have: metrics of changing types, metadata of all kinds."""
    stages = sample_stages(sample_runs())
    odd = [1, None, [1, 7], {"a": 2}, {"a": None, "b": 1}, {"a": [7]}, "a", True, [None], {}]
    metadata = [
        {"team": "ads"},
        {"team": ["a", "ads"]},
        {'a"b': "a"},
        {"": "t1"},
        {"deep": {"x": 1}},
        {"deep": [{"x": "a"}]},
    ]
    for number, stage in enumerate(stages.values()):
        stage["metrics"] = {**stage.get("metrics", {}), "odd": odd[number % len(odd)]}
        stage["metadata"] = metadata[number % len(metadata)]
        stage["capture"] = {"kept": number, "seen": 7}
    return stages


@pytest.fixture(scope="module", params=["few", "many"])
def scan(request, tmp_path_factory):
    """A function that scans a store with the sample; as if few stages fitted each metric, or many."""
    with asyncio.Runner() as runner, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(paths, "most_listed", lambda stages: 10**9 if request.param == "few" else 0)
        store = SqliteStore(tmp_path_factory.mktemp("store") / "xray.sqlite3")
        runner.run(store.open())
        runner.run(store.write(PROJECT, WriteBatch(runs=sample_runs(), stages=sample_of_stages())))
        yield lambda scan: ids(runner.run(store.scan(PROJECT, scan)))
        runner.run(store.close())


STAGES = sample_of_stages()
HIGH = ast.Test(ast.Metric("fail_ratio"), ast.Compare("gte", 0.4))


@settings(max_examples=400, deadline=None)
@given(condition=conditions(SCALARS + METRICS[:3]))
def test_scalar_fields_and_metrics_are_exact(scan, condition):
    """On scalar fields, and on metrics that are numbers, a scan finds exactly what the evaluator says."""
    expected = [stage["id"] for stage in STAGES.values() if matches(condition, stage)]
    found = scan(ast.Scan("stages", stage=condition))
    assert set(expected) <= set(found)
    if not has_strange_values(condition):
        assert found == expected


@settings(max_examples=400, deadline=None)
@given(condition=conditions(SCALARS[1:3] + METRICS + JSON))
def test_nothing_that_matches_is_left_out(scan, condition):
    """Whatever a condition reaches into, however it is nested in complements, a scan lacks no match."""
    expected = {stage["id"] for stage in STAGES.values() if matches(condition, stage)}
    assert expected <= set(scan(ast.Scan("stages", stage=condition)))
    of_runs = {STAGES[stage_id]["run_id"] for stage_id in expected}
    assert of_runs <= set(scan(ast.Scan("runs", stage=condition)))
    some = {stage["run_id"] for stage in STAGES.values() if matches(HIGH, stage)}
    assert of_runs & some <= set(scan(ast.Scan("runs", stage=HIGH, stages=(HIGH, condition))))


@settings(max_examples=200, deadline=None)
@given(condition=conditions(METRICS + SCALARS), descending=st.booleans(), reference=st.sampled_from(METRICS[:3]))
def test_sorting_by_a_metric_loses_nothing(scan, condition, descending, reference):
    """Sorted by a metric, a scan finds the same stages as sorted by id."""
    sort = (ast.SortKey(reference, descending), ast.SortKey(ast.Field(("id",))))
    sorted_ = scan(ast.Scan("stages", stage=condition, sort=sort))
    assert {stage["id"] for stage in STAGES.values() if matches(condition, stage)} <= set(sorted_)
    assert len(sorted_) == len(set(sorted_))


def has_strange_values(condition):
    """Whether it has values that the parser refuses or that no metric can be compared with."""
    match condition:
        case ast.And(parts) | ast.Or(parts):
            return any(map(has_strange_values, parts))
        case ast.Not(inner):
            return has_strange_values(inner)
        case ast.Test(reference, operator):
            values = {ast.Compare: lambda: [operator.value], ast.In: lambda: operator.values}.get(
                type(operator), list
            )()
            is_metric = isinstance(reference, ast.Metric)
            return any(value in ("\ud800", 2**70) or (is_metric and not fits_metric(value)) for value in values)


def fits_metric(value):
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


@pytest.mark.parametrize("value", [-2, -1.5, 0, 0.5, 3, 4, 2**70])
@pytest.mark.parametrize("op", ["eq", "gt", "gte", "lt", "lte"])
def test_scores_narrow_and_never_lose(tmp_path, op, value):
    """A stage with such a score is found by the range of its scores, one whose scores cannot reach it is not."""
    scores = {"a": [-1.5, 0.5, None], "b": [3], "c": [None], "d": [2**53 + 1, 0.25]}
    stage_ids = {name: f"00000000-0000-7000-9000-00000000000{name}" for name in scores}
    condition = ast.Test(ast.Field(("score",)), ast.Compare(op, value))

    async def use():
        store = SqliteStore(tmp_path / "xray.sqlite3")
        await store.open()
        for name, stage_id in stage_ids.items():
            columns = Columns([f"{name}{n}" for n in range(len(scores[name]))], {"score": scores[name]})
            stage = {"id": stage_id, "run_id": "r"}
            await store.write(PROJECT, WriteBatch(stages={stage_id: stage}, pages=paginate("r", stage_id, 1, columns)))
        found = ids(await store.scan(PROJECT, ast.Scan("stages", candidate=condition)))
        await store.close()
        return found

    found = asyncio.run(use())
    for name, stage_id in stage_ids.items():
        given = [score for score in scores[name] if score is not None]
        if any(matches(condition, {"score": score}) for score in given):
            assert stage_id in found
        elif value != 2**70 and (not given or value < min(given) or value > max(given)):
            assert stage_id not in found
