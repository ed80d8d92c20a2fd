"""The stage type ``judged``: its measures against formulas written here, and what each stage lost."""

from __future__ import annotations

import math
import random

import pytest

import xray
import xray_ir_metrics
from xray.plugins import installed
from xray.stage_types.base import StageType
from xray.testing import Recorder, StageTypeContract
from xray_ir_metrics import JudgedStage, judged_stage
from xray_ir_metrics.measures import measured

if "judged" not in installed().stage_types:  # its package need not be installed
    installed().register(xray_ir_metrics, "ir-metrics")


class TestContract(StageTypeContract):
    """What X-Ray relies on."""

    def make_stage_type(self) -> StageType:
        return JudgedStage()


def by_hand(ranking, grades):
    def dcg(gains):
        return sum(gain / math.log2(place + 2) for place, gain in enumerate(gains))

    relevant = {item for item, grade in grades.items() if grade > 0}
    ideal = dcg(sorted(grades.values(), reverse=True)[:10])
    first = next((place for place, item in enumerate(ranking, 1) if item in relevant), None)
    return {
        "ndcg_at_10": dcg([grades.get(item, 0) for item in ranking[:10]]) / ideal,
        "reciprocal_rank": 0 if first is None else 1 / first,
        "recall_at_10": len(relevant & set(ranking[:10])) / len(relevant),
        "recall_at_100": len(relevant & set(ranking[:100])) / len(relevant),
    }


def test_measures_equal_the_formulas():
    """On random rankings and grades, as far as the definitions go."""
    rng = random.Random(3)
    for _ in range(60):
        items = [f"d{n}" for n in range(rng.randint(1, 150))]
        ranking = rng.sample(items, rng.randint(0, len(items)))
        grades = {item: rng.choice([0, 0, 0, 1, 2, 3]) for item in items} | {"never seen": 1}
        assert measured(ranking, grades) == pytest.approx(by_hand(ranking, grades))


def test_nothing_relevant_is_no_measure():
    """A ratio over nothing is left out, not 0."""
    assert measured(["a"], {"a": 0}) == {}
    assert measured([], {"a": 1}) == dict.fromkeys(
        ("ndcg_at_10", "reciprocal_rank", "recall_at_10", "recall_at_100"), 0
    )


@xray.pipeline("search")
def search(query, clicked):
    found = retrieve(query, clicked)
    return rank(keep(found, clicked), clicked)


@judged_stage("retrieve", relevant="clicked")
def retrieve(query, clicked):
    return [{"id": f"d{n}", "price": n} for n in range(40)]


@judged_stage("keep", relevant="clicked")
def keep(found, clicked):
    return [item for item in found if item["price"] < 20]


@judged_stage("rank", relevant="clicked", score=lambda item: -item["price"])
def rank(found, clicked):
    return sorted(found, key=lambda item: -item["price"])[:15]


def test_which_stage_lost_the_relevant_item():
    """The losses of the stages add up to what is missing at the end; the lost item has a label of its own."""
    with Recorder() as recorded:
        search("x", ["d3", "d19", "d30", "d99"])
        stages = {stage.name: stage for stage in recorded.last_run.stages}
    assert {name: stage.metrics["recall_loss"] for name, stage in stages.items()} == {
        "retrieve": 0.25, "keep": 0.25, "rank": 0.25,
    }  # fmt: skip
    assert stages["rank"].metrics["relevant_out"] == 1
    assert stages["rank"].metrics["reciprocal_rank"] == 1
    lost = {
        name: [row["candidate_id"] for row in stage.rows if row.get("reason_label") == "relevant_lost"]
        for name, stage in stages.items()
    }
    assert lost == {"retrieve": [], "keep": ["d30"], "rank": ["d3"]}
    assert next(row for row in stages["rank"].rows if row["candidate_id"] == "d19")["score"] == -19
    assert (stages["keep"].metrics["input_count"], stages["keep"].metrics["output_count"]) == (40, 20)


@pytest.mark.parametrize("capture", ["full", "summary", "random(2)"])
def test_grades_read_from_the_candidates(capture):
    """Also of those that were dropped; the same at every tier."""

    @judged_stage("rank", relevance="clicked", capture=capture)
    def rank_clicked(pool):
        return [pool[1], pool[0]]

    with Recorder() as recorded:
        rank_clicked([{"id": "a", "clicked": 1}, {"id": "b", "clicked": 0}, {"id": "c", "clicked": True}])
        (stage,) = recorded.last_run.stages
    metrics = stage.metrics
    assert (metrics["relevant_known"], metrics["relevant_out"], metrics["recall_loss"]) == (2, 1, 0.5)
    assert metrics["first_relevant_rank"] == 2
    assert metrics["ndcg_at_10"] == pytest.approx((1 / math.log2(3)) / (1 + 1 / math.log2(3)))


def test_grades_by_id():
    """Graded judgements given as a mapping."""

    @judged_stage("rank", relevant={"a": 1, "b": 3})
    def graded(pool):
        return pool

    with Recorder() as recorded:
        graded([{"id": "a"}, {"id": "b"}])
        (stage,) = recorded.last_run.stages
    assert stage.metrics["ndcg_at_10"] == pytest.approx((1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3)))
    assert [row["relevance"] for row in stage.rows] == [1, 3]


def test_judgements_that_cannot_be_read_are_none():
    """No error, no measure."""

    @judged_stage("rank", relevant="nowhere", relevance="grade")
    def odd(pool):
        return pool

    with Recorder() as recorded:
        odd([{"id": "a", "grade": "very"}, {"id": "b", "grade": float("nan")}])
        (stage,) = recorded.last_run.stages
    assert stage.metrics["relevant_known"] == 0
    assert "ndcg_at_10" not in stage.metrics


def test_many_judgements_are_recorded_whole():
    """An argument that the decorator names is no large value to be left out, and never the candidates."""

    @judged_stage("retrieve", relevant="clicked")
    def fetch(clicked):
        return [{"id": f"d{n}"} for n in range(10)]

    with Recorder() as recorded:
        fetch([f"d{n}" for n in range(80)])
        (stage,) = recorded.last_run.stages
    assert (stage.metrics["relevant_known"], stage.metrics["relevant_out"], stage.metrics["input_count"]) == (80, 10, 0)
