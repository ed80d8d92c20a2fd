"""By which way the SQLite store gets to what it is asked for, as SQLite itself explains it."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing

import pytest

from xray_server.conformance.suite import with_open
from xray_server.query.ast import And, Compare, Exists, Field, In, Metric, Not, Scan, SortKey
from xray_server.query.ast import Test as Condition
from xray_server.query.sorting import DEFAULT_SORT
from xray_server.stores.base import WriteBatch
from xray_server.stores.questions import offered_questions
from xray_server.stores.sqlite import SqliteStore, paths, reader
from xray_server.testing_data import PROJECT, ids, sample_runs, sample_stages

QUESTIONS = dict(offered_questions())
BY_ID = SortKey(Field(("id",)))
HIGH = Condition(Metric("fail_ratio"), Compare("gte", 0.4))
BY_RATIO = (SortKey(Metric("fail_ratio"), descending=True), SortKey(Field(("id",)), descending=True))

NEEDED_BY = {
    "runs_by_id": "a run by its id",
    "runs_by_start": "the latest runs",
    "runs_by_label": "the latest runs of a pipeline",
    "runs_by_key": "a run by its key",
    "stages_by_id": "a stage by its id",
    "stages_by_run": "the stages of a run",
    "stages_by_start": "the latest stages",
    "stages_by_type": "the latest stages of a type",
    "stages_by_name": "the latest stages of a name",
    "stages_by_label": "the latest stages of a pipeline",
    "stages_by_removal": "stages whose candidates were removed",
}
"""Index → a question that it serves."""


@pytest.fixture
def file(tmp_path):
    """A file with the sample, closed."""
    file = tmp_path / "xray.sqlite3"
    runs = sample_runs()
    with_store(file, lambda store: store.write(PROJECT, WriteBatch(runs=runs, stages=sample_stages(runs))))
    return file


def with_store(file, use):
    return asyncio.run(with_open(SqliteStore(file), use))


def explained(file, scan):
    return with_store(file, lambda store: store.explain(PROJECT, scan))


def found(file, scan):
    return ids(with_store(file, lambda store: store.scan(PROJECT, scan)))


@pytest.fixture(params=["few", "many"])
def sizes(request, monkeypatch):
    """Whether few stages fit every metric, or many; the sample alone is too small for the latter."""
    monkeypatch.setattr(paths, "most_listed", lambda stages: 10**9 if request.param == "few" else 0)
    return request.param


@pytest.mark.parametrize("words", QUESTIONS)
def test_every_offered_question_has_an_index(file, sizes, words):
    """An index leads to the documents of every question that API and CLI offer, whether few or many fit."""
    plan = explained(file, QUESTIONS[words])
    assert plan.indexed, plan.detail


@pytest.mark.parametrize("words", QUESTIONS)
def test_no_step_reads_a_whole_project(file, sizes, words):
    """No step of a plan goes through all rows of a project, but where the order of its index is the one asked for."""
    for steps in all_steps(file, QUESTIONS[words]):
        assert not [step for step in steps if step.startswith("SCAN")]
        whole = [step for step in steps if step.endswith("(project=?)")]
        assert not whole or "in the order of a metric" in words  # behind those with the metric: the others, by id


def test_one_stage_whose_candidates_may_be_gone_is_found_by_its_id(file):
    """Not among all stages whose candidates retention has removed."""
    of_one = Condition(Field(("id",)), Compare("eq", "s1"))
    gone = Condition(Field(("candidates_removed_at",)), Compare("gt", 0))
    plan = explained(
        file, Scan("stages", stage=And((of_one, gone)), sort=(SortKey(Field(("candidates_removed_at",))),))
    )
    assert plan.indexed
    assert "stages_by_id" in plan.detail
    assert "stages_by_removal" in explained(file, Scan("stages", stage=gone)).detail


def all_steps(file, scan):
    """What SQLite does for each statement of a scan."""

    def steps(statement, one):
        return list(one._steps(statement))

    async def use(store):
        def look(connection):
            one = store._reader()
            return [steps(statement, one) for statement in reader.scans.statements(connection, PROJECT, scan)]

        return await store._read(look)

    return with_store(file, use)


@pytest.mark.parametrize("index", NEEDED_BY)
def test_a_dropped_index_is_noticed_and_costs_no_answer(file, index):
    """Without its index a question's plan says so and ``check`` finds it; the answer is the same, only later."""
    scan = QUESTIONS[NEEDED_BY[index]]
    everything = Scan(scan.of, sort=scan.sort, limit=1000)
    before = found(file, scan), found(file, everything)
    assert index in explained(file, scan).detail
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(f"DROP INDEX {index}")
    plan = explained(file, scan)
    assert not plan.indexed
    assert index in plan.detail
    assert (found(file, scan), found(file, everything)) == before
    findings = with_store(file, lambda store: store.check())
    wrong = {finding.what for finding in findings if not finding.ok}
    assert {f"index {index}", f"question: {NEEDED_BY[index]}"} <= wrong


def test_the_schema_has_no_index_that_no_question_needs(file):
    """Every index on runs and stages serves a question of the list above."""
    with closing(sqlite3.connect(file)) as connection:
        query = "SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL AND tbl_name IN (?, ?)"
        there = {name for (name,) in connection.execute(query, ("runs", "stages"))}
    assert there == set(NEEDED_BY)


@pytest.mark.parametrize(
    ("scan", "wanted"),
    [
        (Scan("stages", stage=HIGH, sort=DEFAULT_SORT), "SEARCH m USING PRIMARY KEY (metric=? AND value>?"),
        (Scan("stages", stage=HIGH, sort=BY_RATIO), "SEARCH k0 USING PRIMARY KEY (metric=? AND value>?"),
        (
            Scan("stages", stage=Condition(Metric("fail_ratio"), Exists(wanted=True)), sort=DEFAULT_SORT),
            "SEARCH m USING PRIMARY KEY (metric=?)",
        ),
        (
            Scan("stages", stage=Condition(Metric("fail_ratio"), In((0.4, 1))), sort=DEFAULT_SORT),
            "SEARCH m USING PRIMARY KEY (metric=? AND value=?)",
        ),
        (Scan("runs", stage=HIGH, sort=DEFAULT_SORT), "SEARCH m USING PRIMARY KEY (metric=? AND value>?"),
    ],
    ids=["latest", "highest", "there", "one of", "runs"],
)
def test_few_stages_come_from_the_index_over_metrics(file, monkeypatch, scan, wanted):
    """Where few stages fit a metric, the index over (metric, value) leads to them."""
    monkeypatch.setattr(paths, "most_listed", lambda stages: 10**9)
    assert any(wanted in step for step in next(iter(all_steps(file, scan))))


@pytest.mark.parametrize(
    "condition",
    [
        HIGH,
        Condition(Metric("fail_ratio"), Exists(wanted=True)),
        Condition(Metric("fail_ratio"), Exists(wanted=False)),
        Condition(Metric("fail_ratio"), Compare("eq", None)),
        Not(HIGH),
    ],
    ids=["compared", "there", "not there", "null", "not"],
)
def test_many_stages_are_gone_through_in_order(file, monkeypatch, condition):
    """Where many stages fit, they are read in the order that is asked for; nothing is collected or sorted first."""
    monkeypatch.setattr(paths, "most_listed", lambda stages: 0)
    filtering = Condition(Field(("type",)), Compare("eq", "filtering"))
    for stage, index in ((condition, "stages_by_start"), (And((condition, filtering)), "stages_by_type")):
        for steps in all_steps(file, Scan("stages", stage=stage, sort=DEFAULT_SORT)):
            assert index in steps[0]
            assert not any("stage_metrics" in step or " m " in step for step in steps)
            assert "USE TEMP B-TREE FOR ORDER BY" not in steps


def test_a_run_s_stages_are_found_by_the_run_whatever_they_are_sorted_by(file, sizes):
    """The few stages of a run are not looked for among all stages, in the order of a metric."""
    of_run = Condition(Field(("run_id",)), Compare("eq", next(iter(sample_runs()))))
    for sort in (BY_RATIO, DEFAULT_SORT, (SortKey(Field(("order",))), BY_ID)):
        scan = Scan("stages", stage=And((of_run, HIGH)), sort=sort)
        assert all("stages_by_run" in steps[0] for steps in all_steps(file, scan))


def test_unserved_conditions_are_admitted(file):
    """A plan that has to look at every document says that no index serves the question."""
    team = Condition(Field(("metadata", "team")), Compare("eq", "ads"))
    for scan in (
        Scan("stages", stage=team, sort=DEFAULT_SORT),
        Scan("runs", pipeline=team, sort=DEFAULT_SORT),
        Scan("stages", sort=(SortKey(Field(("duration_ms",))), BY_ID)),
    ):
        plan = explained(file, scan)
        assert not plan.indexed
        assert "No index serves" in plan.detail


@pytest.mark.parametrize("of", ["stages", "runs"])
def test_stages_that_fit_far_from_the_first_are_taken_from_the_index(file, monkeypatch, of):
    """Where many stages fit, but none of the first ones, the search begins anew with those that fit."""
    monkeypatch.setattr(paths, "most_listed", lambda stages: 0)
    sort = (SortKey(Field(("started_at",))), BY_ID) if of == "runs" else (BY_ID,)
    scan = Scan(of, stage=HIGH, sort=sort, limit=1000)
    expected = found(file, scan)
    assert expected
    listed = []
    once = reader.Reader._listed
    monkeypatch.setattr(reader.Reader, "_listed", lambda self, *args: listed.append(1) or once(self, *args))
    monkeypatch.setattr(reader, "LOOKS_BEFORE_LISTING", 2)
    assert found(file, scan) == expected
    assert listed == [1]
