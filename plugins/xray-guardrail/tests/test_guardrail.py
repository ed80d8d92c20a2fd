"""The stage type ``guardrail``: verdicts per policy, calibration, flips."""

from __future__ import annotations

import random

import pytest

import xray_guardrail
from xray.plugins import installed
from xray.stage_types.base import StageType
from xray.testing import Recorder, StageTypeContract
from xray_guardrail import GuardrailStage, guardrail_stage
from xray_guardrail.calibration import calibration

if "guardrail" not in installed().stage_types:  # its package need not be installed
    installed().register(xray_guardrail, "guardrail")

ITEMS = [
    {"id": "1", "policies": {"spam": True, "hate": False}, "confidence": 0.9, "expected": True, "previous": False},
    {"id": "2", "policies": {"spam": False, "hate": False}, "confidence": 0.9, "expected": True, "previous": "blocked"},
    {"id": "3", "policies": {"spam": "allow", "hate": {"flagged": True, "confidence": 0.5}}, "confidence": 0.5},
    {"id": "4", "policies": {"spam": False}, "expected": False, "previous": "allow"},
]


class TestContract(StageTypeContract):
    """What X-Ray relies on."""

    def make_stage_type(self) -> StageType:
        return GuardrailStage()


def recorded_stage(function, pool):
    with Recorder() as recorded:
        function(pool)
        (stage,) = recorded.last_run.stages
    return stage


@pytest.mark.parametrize("capture", ["full", "summary", "random(1)"])
def test_verdicts_per_policy(capture):
    """An item is blocked by any policy; counts and ratios are per policy too, at every tier."""

    @guardrail_stage("moderate", capture=capture)
    def moderate(pool):
        return pool

    stage = recorded_stage(moderate, ITEMS)
    metrics = stage.metrics
    assert (metrics["blocked"], metrics["block_ratio"]) == (2, 0.5)
    assert metrics["blocked_by_policy"] == {"spam": 1, "hate": 1}
    assert metrics["checks_failed"] == {"spam": 1, "hate": 1}
    assert metrics["check_fail_ratio"] == {"spam": 1 / 4, "hate": 1 / 3}
    assert metrics["policy_confidence"] == {"hate": 0.5}
    assert (metrics["accuracy"], metrics["wrongly_blocked"], metrics["wrongly_passed"]) == (2 / 3, 0, 1)
    assert (metrics["flips"], metrics["flip_ratio"]) == (2, 2 / 3)
    assert (metrics["flips_to_blocked"], metrics["flips_to_passed"]) == (1, 1)
    assert metrics["confidence_min"] == 0.5
    # Two verdicts of confidence 0.9, of which one is right.
    assert metrics["calibration_error"] == pytest.approx(0.4)
    assert metrics["overconfidence"] == pytest.approx(0.4)
    assert (metrics["input_count"], metrics["output_count"]) == (4, 2), "the blocked do not go on"
    if capture == "full":
        assert [row.get("reason_label") for row in stage.rows] == ["spam", None, "hate", None]
        assert [row["verdict"] for row in stage.rows] == ["failed", "passed", "failed", "passed"]


def test_the_panel_has_a_diagram_of_the_calibration():
    """Each bin at its confidence and the share that was right; without bins that can be read there is no diagram."""
    bins = [
        {"upto": 0.5, "count": 4, "confidence": 0.45, "right": 0.25},
        {"upto": 1.0, "count": 2000, "confidence": 1, "right": 1},
    ]
    stage = {"metrics": {"blocked_by_policy": {"spam": 2}, "calibration_bins": bins}}
    bars, diagram = GuardrailStage().panel(stage)
    assert bars["data"][0]["x"] == [2]
    points = diagram["data"][0]
    assert list(zip(points["x"], points["y"], points["text"], strict=True)) == [
        (0.45, 0.25, "4 verdicts"),
        (1, 1, "2,000 verdicts"),
    ]
    for bad in (None, [], {}, [{}], [{"confidence": None, "right": 1, "count": 1}]):
        assert GuardrailStage().panel({"metrics": {"calibration_bins": bad}}) == []


def test_survivors_only():
    """What did not go out was blocked, and what was known of it is read from what came in."""

    @guardrail_stage("moderate", policies=lambda item: None)
    def moderate(pool):
        return [item for item in pool if item["id"] != "4"]

    stage = recorded_stage(moderate, ITEMS)
    assert [row.get("reason_label") for row in stage.rows] == [None, None, None, "dropped"]
    assert (stage.metrics["wrongly_blocked"], stage.metrics["wrongly_passed"]) == (1, 2)
    assert (stage.metrics["input_count"], stage.metrics["output_count"]) == (4, 3)


def test_a_calibrated_guardrail_has_next_to_no_error():
    """Verdicts that are right as often as they say; one that is always sure and half right has an error of a half."""
    rng = random.Random(5)
    honest = [(sure, rng.random() < sure) for sure in (rng.random() for _ in range(20_000))]
    found = calibration(honest)
    assert found is not None
    assert found["error"] < 0.02
    boastful = calibration([(1.0, True), (1.0, False)])
    assert boastful is not None
    assert boastful["error"] == boastful["gap"] == 0.5
    timid = calibration([(0.25, True)])
    assert timid is not None
    assert (timid["error"], timid["gap"]) == (0.75, -0.75)
    assert calibration([]) is None


def test_bins_hold_their_upper_edge():
    """((m - 1) / M, m / M]: 0.1 is of the first bin, what is above of the second, 0 of the first too."""
    found = calibration([(0.0, False), (0.1, False), (0.11, False), (1.0, True)])
    assert found is not None
    assert [(each["upto"], each["count"]) for each in found["bins"]] == [(0.1, 2), (0.2, 1), (1.0, 1)]


def test_what_cannot_be_read_is_no_verdict():
    """Unknown words, confidences beyond 1 and policies that are no mapping count as nothing."""

    @guardrail_stage("moderate")
    def moderate(pool):
        return pool

    stage = recorded_stage(
        moderate,
        [
            {"id": "1", "policies": {"spam": "perhaps"}, "confidence": 7, "expected": "who knows"},
            {"id": "2", "policies": 3},
        ],
    )
    assert stage.metrics["blocked"] == 0
    assert not {"confidence_mean", "accuracy", "calibration_error", "flips"} & set(stage.metrics)
