"""The near-duplicate stage type, its clustering and its metrics."""

from __future__ import annotations

import itertools
import random

import pytest

import xray_dedup
from xray.plugins import installed
from xray.stage_types.base import Columns, StageType
from xray.testing import Recorder, StageTypeContract
from xray_dedup import DedupStage, dedup_stage
from xray_dedup.similar import clusters, jaccard, shingles

POOL = [
    {"id": "a", "title": "Red running shoe for men, size 42"},
    {"id": "b", "title": "red running shoe for men size 42"},
    {"id": "c", "title": "Green garden hose"},
    {"id": "d", "title": "Red running shoe for men, size 42!"},
]


if "dedup" not in installed().stage_types:  # its package need not be installed
    installed().register(xray_dedup, "dedup")


class TestContract(StageTypeContract):
    """What X-Ray relies on."""

    def make_stage_type(self) -> StageType:
        return DedupStage()


def test_groups_that_the_stage_gives():
    """Every candidate comes back with its group."""

    @dedup_stage("group", cluster="group")
    def group(pool):
        return [{**item, "group": item["title"][:3].lower()} for item in pool]

    with Recorder() as recorded:
        group(POOL)
        (stage,) = recorded.last_run.stages
    assert [row["cluster"] for row in stage.rows] == ["red", "red", "gre", "red"]
    metrics = stage.metrics
    assert (metrics["dedup_clusters"], metrics["largest_cluster"], metrics["duplicate_ratio"]) == (2, 3, 0.5)
    assert (metrics["duplicates_kept"], metrics["duplicates_dropped"], metrics["clusters_lost"]) == (2, 0, 0)
    assert (metrics["input_count"], metrics["output_count"]) == (4, 4)


@pytest.mark.parametrize("capture", ["full", "summary", "top(1)"])
def test_survivors_are_compared_by_their_text(capture):
    """The dropped are duplicates of what went on, and the metrics are those of all candidates at every tier."""

    @dedup_stage("dedup", text="title", capture=capture)
    def dedup(pool):
        return [pool[0], pool[2]]

    with Recorder() as recorded:
        dedup(POOL)
        (stage,) = recorded.last_run.stages
    metrics = stage.metrics
    assert (metrics["dedup_clusters"], metrics["largest_cluster"], metrics["duplicate_ratio"]) == (2, 3, 0.5)
    assert (metrics["duplicates_kept"], metrics["duplicates_dropped"], metrics["clusters_lost"]) == (0, 2, 0)
    if capture == "full":
        assert {row["candidate_id"]: row.get("reason_label") for row in stage.rows} == {
            "a": None, "b": "duplicate", "c": None, "d": "duplicate",
        }  # fmt: skip
        assert stage.rows[1]["cluster"] == "like a"


def test_a_group_that_is_gone_altogether_is_counted():
    """Something that had no duplicate was dropped."""

    @dedup_stage("dedup", text=lambda item: item["title"])
    def dedup(pool):
        return pool[:1]

    with Recorder() as recorded:
        dedup(POOL)
        (stage,) = recorded.last_run.stages
    assert stage.metrics["clusters_lost"] == 1


def test_clustering_agrees_with_comparing_all_pairs():
    """Groups are the connected parts of the graph of all pairs at or above the threshold."""
    rng = random.Random(7)
    words = ["red", "green", "blue", "shoe", "hose", "hat", "big", "small", "new", "old"]
    texts = [" ".join(rng.choices(words, k=rng.randint(0, 7))) for _ in range(120)]
    for threshold in (0.2, 0.5, 0.8, 1.0):
        group = {place: {place} for place in range(len(texts))}
        for a, b in itertools.combinations(range(len(texts)), 2):
            if jaccard(shingles(texts[a]), shingles(texts[b])) >= threshold and group[a] is not group[b]:
                group[a] |= group[b]
                for member in group[b]:
                    group[member] = group[a]
        assert clusters(texts, threshold) == [min(group[place]) for place in range(len(texts))]


def test_jaccard_by_hand():
    """Two of four shingles in common."""
    assert jaccard(shingles("a b c d"), shingles("b c d e")) == 2 / 4
    assert jaccard(shingles(""), shingles("")) == 0
    assert jaccard(shingles("One, TWO"), shingles("one two")) == 1


def test_candidates_without_a_group_are_counted_apart():
    """They are neither duplicates nor groups."""
    found = DedupStage().compute(
        Columns(["a", "b", "c"], {"cluster": ["x", None, "x"], "verdict": ["passed", "passed", "failed"]})
    )
    assert (found["unclustered"], found["dedup_clusters"], found["duplicate_ratio"]) == (1, 1, 0.5)
    assert (found["duplicates_kept"], found["duplicates_dropped"]) == (0, 1)
