"""Ingest: what a batch of events becomes, in whatever order and however often it comes."""

from __future__ import annotations

import asyncio
import itertools
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.helpers import (
    OTHER_STAGE_ID,
    RUN,
    RUN_ID,
    STAGE_ID,
    candidates,
    everything,
    open_ingest,
    row,
    run_end,
    run_start,
    stage,
)
from xray.hookspecs import hookimpl
from xray.metrics import Metric
from xray.plugins import Plugins, installed
from xray.stage_types.base import Columns, StageType
from xray_server.measure import remeasure
from xray_server.pages import PAGE_SIZE
from xray_server.query.ast import Compare, Scan
from xray_server.query.ast import Metric as MetricReference
from xray_server.query.ast import Test as Condition
from xray_server.testing_data import PROJECT, ids

MS = 1793491200000


class Fragile(StageType):
    """A stage type whose metrics fail for a candidate named ``boom``."""

    name = "fragile"
    meaning = "Breaks."
    metrics = (Metric("counted", "candidates", "How many."),)

    def compute(self, columns):
        if "boom" in columns.candidate_id:
            raise ValueError("no such luck")
        columns.facts["changed"] = True
        return {"counted": len(columns), "broken": float("nan")}

    @hookimpl
    def xray_stage_types(self):
        return [self]


def ingest(folder, *batches, plugins=None):
    """Everything that a new store has after these batches."""

    async def run():
        async with open_ingest(folder, plugins) as (ingest, store):
            for batch in batches:
                result = await ingest.accept(PROJECT, batch)
                assert result.errors == []
                assert result.accepted == len(batch)
            return await everything(store)

    return asyncio.run(run())


def test_a_run_with_a_stage(tmp_path):
    """Events of a run become its document, the stage's with its metrics, and its candidates."""
    rows = [row(n) for n in range(6)]
    events = [run_start(input={"q": 1}, tags=["b", "a", "b"]), stage(candidates=rows), run_end(output=[1])]
    runs, stages, kept = ingest(tmp_path, events)
    run = {"id": RUN_ID, "key": "request 1", "label": "competitor_discovery", "version": "2026.11", "started_at": MS}
    assert runs == {
        RUN_ID: run | {"status": "success", "input": {"q": 1}, "output": [1], "tags": ["a", "b"], "duration_ms": 12.5}
    }
    counts = {"price_too_high": 2, "rating_too_low": 2}
    assert stages[STAGE_ID] == {
        "id": STAGE_ID,
        "run_id": RUN_ID,
        "name": "price_filter",
        "type": "filtering",
        "order": 0,
        "started_at": MS + 1000,
        "duration_ms": 3,
        "status": "success",
        "capture": {"mode": "full", "seen": 6, "kept": 6},
        "metrics": {
            "duration_ms": 3,
            "input_count": 6,
            "output_count": 2,
            "passed": 2,
            "failed": 4,
            "fail_ratio": 4 / 6,
            "label_counts": counts,
            "label_share": {"price_too_high": 0.5, "rating_too_low": 0.5},
            "unlabelled": 0,
        },
        "metrics_over": 6,
        "pipeline": run,
    }
    named = [{"candidate_id": given.pop("id")} | given for given in rows]
    assert kept == {STAGE_ID: list(enumerate(named))}


EVENTS = [
    run_start(metadata={"a": 1}),
    stage(candidates=[row(n) for n in range(3)], facts={"labels": ["price_too_high"]}, metrics={"custom": 5}),
    candidates(3, [row(n) for n in range(3, PAGE_SIZE - 1)]),
    candidates(PAGE_SIZE - 1, [row(n) for n in range(PAGE_SIZE - 1, PAGE_SIZE + 4)]),
    candidates(1, [row(1)]),
    stage(id=OTHER_STAGE_ID, stage_type="scoring", order=1, columns={"id": ["a", "b"], "score": [0.5, None]}),
    run_end(metadata={"b": 2}),
    {"type": "run.start", "run": {"id": RUN_ID}},
]
WHOLE_METRICS = installed().stage_type("filtering").compute(
    Columns.from_rows(
        [{"candidate_id": f"c{n}"} | row(n) for n in range(PAGE_SIZE + 4)], {"labels": ["price_too_high"]}
    )
) | {"duration_ms": 3, "custom": 5}


@settings(max_examples=40, deadline=None)
@given(
    order=st.permutations(EVENTS + EVENTS),
    cuts=st.lists(st.integers(0, 2 * len(EVENTS)), max_size=5),
    at_once=st.booleans(),
)
def test_any_order_any_batches_and_twice_give_the_same(order, cuts, at_once):
    """A run's events in any order, in any batches, one after the other or at once, and twice, give the same."""
    places = sorted({0, *cuts, len(order)})
    batches = [order[start:stop] for start, stop in itertools.pairwise(places)]

    async def run(folder):
        async with open_ingest(folder) as (ingest, store):
            accepting = [ingest.accept(PROJECT, batch) for batch in batches]
            if at_once:
                await asyncio.gather(*accepting)
            else:
                for one in accepting:
                    await one
            return await everything(store)

    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(run(Path(folder)))
    assert found == EXPECTED
    runs, stages, kept = found
    assert runs[RUN_ID]["metadata"] == {"a": 1, "b": 2}
    assert runs[RUN_ID]["status"] == "success"
    assert stages[STAGE_ID]["metrics"] == WHOLE_METRICS
    assert stages[STAGE_ID]["metrics_over"] == PAGE_SIZE + 4
    assert stages[STAGE_ID]["capture"] == {"mode": "full", "seen": PAGE_SIZE + 4, "kept": PAGE_SIZE + 4}
    assert [seq for seq, _ in kept[STAGE_ID]] == list(range(PAGE_SIZE + 4))


with tempfile.TemporaryDirectory() as _folder:
    EXPECTED = ingest(Path(_folder), EVENTS)


def test_bad_events_do_not_cost_the_good_ones(tmp_path):
    """The good events of a batch are stored; each bad one is reported with its place."""

    async def run():
        async with open_ingest(tmp_path) as (ingest, store):
            events = [7, run_start(), {"type": "run.end"}, stage(candidates=[3])]
            result = await ingest.accept(PROJECT, events)
            assert result.accepted == 1
            assert [(rejected.index, rejected.error.code) for rejected in result.errors] == [
                (0, "bad_event"),
                (2, "missing_run_id"),
                (3, "bad_candidate"),
            ]
            assert list((await everything(store))[0]) == [RUN_ID]

    asyncio.run(run())


@pytest.mark.parametrize("order", [1, -1])
def test_stages_have_what_only_another_event_said_of_their_run(tmp_path, order):
    """A stage's event that says only the run's id still gets the run's label, whichever comes first."""
    batches = [[run_start()], [stage(run={"id": RUN_ID})]][::order]
    _, stages, _ = ingest(tmp_path, *batches)
    assert stages[STAGE_ID]["pipeline"] == RUN | {"started_at": MS}


def test_candidates_alone_make_a_running_stage(tmp_path):
    """Candidates whose stage's event has not come are kept, under a stage that is still running."""
    _, stages, kept = ingest(tmp_path, [candidates(0, [row(0)])])
    assert stages[STAGE_ID]["status"] == "running"
    assert len(kept[STAGE_ID]) == 1


def test_the_senders_metrics_are_taken_as_they_are(tmp_path):
    """Metrics over more candidates than were kept are not replaced by metrics over the kept ones."""
    capture = {"mode": "sampled", "seen": 1000, "kept": 4}
    first = stage(metrics={"fail_ratio": 0.75, "failed": 750}, capture=capture, candidates=[row(0), row(1)])
    _, stages, _ = ingest(tmp_path, [first], [candidates(2, [row(2), row(3)])])
    assert stages[STAGE_ID]["metrics"] == {"duration_ms": 3, "fail_ratio": 0.75, "failed": 750}
    assert stages[STAGE_ID]["metrics_over"] == 1000
    assert stages[STAGE_ID]["capture"] == capture


def test_a_stage_without_candidates_has_its_counts(tmp_path):
    """A filtering stage that looked at nothing has counts of 0 and no ratio."""
    _, stages, _ = ingest(tmp_path, [stage()])
    metrics = stages[STAGE_ID]["metrics"]
    assert (metrics["failed"], metrics["passed"], metrics["duration_ms"]) == (0, 0, 3)
    assert "fail_ratio" not in metrics


def test_metrics_of_an_unknown_type_are_kept_with_their_declarations(tmp_path):
    """A type without a plugin here keeps the sender's metrics; what it does not declare is told by the value.

    What X-Ray measures of every type is declared already.
    """
    declared = Metric("oddness", "ratio", "How odd.", bad="high").as_dict()
    event = stage(
        stage_type="audit",
        metrics={"oddness": 0.5, "by_team": {"a": 1}, "shape": [1], "checks_failed": {"polite": 1}},
        metric_declarations=[declared, Metric("duration_ms", "ms", "").as_dict()],
        candidates=[{"id": "a"}],
    )

    async def run():
        async with open_ingest(tmp_path) as (ingest, store):
            await ingest.accept(PROJECT, [event])
            found = (await store.declarations(PROJECT))["audit"]
            assert {metric["name"]: metric["kind"] for metric in found} == {
                "oddness": "number",
                "by_team": "table",
                "shape": "data",
            }
            assert declared in found
            odd = Scan("stages", stage=Condition(MetricReference("oddness"), Compare("eq", 0.5)))
            assert ids(await store.scan(PROJECT, odd)) == [STAGE_ID]

    asyncio.run(run())


def test_a_plugin_that_fails_does_not_cost_the_stage(tmp_path):
    """Where computing metrics raises, the stage is kept and says so under ``facts``; what is no number is left out."""
    plugins = Plugins(entry_points=False)
    plugins.register(Fragile(), "fragile")
    events = [
        stage(stage_type="fragile", candidates=[{"id": "boom"}]),
        stage(stage_type="fragile", id=OTHER_STAGE_ID, candidates=[{"id": "a"}]),
    ]
    _, stages, kept = ingest(tmp_path, events, plugins=plugins)
    assert stages[STAGE_ID]["facts"] == {"metrics_error": "ValueError: no such luck"}
    assert stages[STAGE_ID]["metrics"] == {"duration_ms": 3}
    assert len(kept[STAGE_ID]) == 1
    assert stages[OTHER_STAGE_ID]["metrics"] == {"duration_ms": 3, "counted": 1}
    assert "facts" not in stages[OTHER_STAGE_ID]


@pytest.mark.parametrize("order", ["first to last", "last to first", "shuffled", "stage at the end"])
def test_a_long_stage_in_many_parts_is_measured_as_in_one_in_near_linear_time(tmp_path, monkeypatch, order):
    """Parts of a stage give the metrics of the whole, in any order; together they cost a few times as much."""
    whole, size = 6000, 100
    rows = [row(number) for number in range(whole)]
    head = stage(capture={"mode": "full", "seen": whole, "kept": whole})
    parts = [candidates(start, rows[start : start + size]) for start in range(0, whole, size)]
    if order == "last to first":
        parts.reverse()
    elif order == "shuffled":
        random.Random(5).shuffle(parts)
    batches = [[head], *([part] for part in parts)]
    if order == "stage at the end":
        batches = [*batches[1:], batches[0]]
    measured = []

    def counting(found, pages, *others):
        measured.append(sum(len(page.seqs) for page in pages))
        return remeasure(found, pages, *others)

    at_once = ingest(tmp_path / "once", [head | {"candidates": rows}])
    monkeypatch.setattr("xray_server.ingest.remeasure", counting)
    assert ingest(tmp_path / "parts", *batches, batches[7]) == at_once
    assert at_once[1][STAGE_ID]["metrics_over"] == whole
    assert sum(measured) <= 10 * whole
