"""Tiers, limits and redaction: whatever is kept, the numbers are those of all candidates."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xray
from tests.sdk.recording import EVERY_WAY, recording

pytestmark = EVERY_WAY

TIERS = ("summary", "sampled", "top(3)", "bottom(2) | random(2)", "per_label(1)", "boundary(3)", 'per("kind", 1)',
         "adaptive(4)")  # fmt: skip

candidates = st.lists(
    st.tuples(st.booleans(), st.sampled_from([None, "low", "high"]), st.integers(-50, 50), st.sampled_from("xy")),
    max_size=30,
)


def pool_of(drawn: list[Any]) -> list[dict[str, Any]]:
    return [
        {"id": f"c{n}", "passed": ok, "reason_label": why, "score": score / 4, "kind": kind}
        for n, (ok, why, score, kind) in enumerate(drawn)
    ]


def record(stage_type: str, pool: list[Any], tier: str, **options: Any) -> Any:
    decorated = xray.stage(stage_type, "s", capture=tier)(lambda candidates: candidates[:])
    with recording(**options) as recorded:
        decorated(pool)
    return recorded


@settings(max_examples=25, deadline=None)
@given(candidates, st.sampled_from(("filtering", "scoring", "ranking", "selection")), st.sampled_from(TIERS))
def test_metrics_at_every_tier_are_those_of_all_candidates(drawn: list[Any], stage_type: str, tier: str):
    """Summary and samples carry the metrics that the full tier's columns give."""
    pool = pool_of(drawn)
    full = record(stage_type, pool, "full").metrics("s")
    stage = record(stage_type, pool, tier).stage("s")
    kept = stage["capture"]["kept"]
    assert stage["capture"]["seen"] == len(pool)
    if kept < len(pool):
        assert stage["metrics"] == full
    for row in stage.get("columns", {}).get("data", []):
        assert row in pool


@settings(max_examples=25, deadline=None)
@given(candidates)
def test_verdicts_labels_and_metrics_equal_a_plain_count(drawn: list[Any]):
    """Recorded verdicts, labels and metrics of a filter, against a reference without any of its code."""
    pool = pool_of(drawn)
    recorded = record("filtering", pool, "full")
    rows = recorded.rows("s")
    assert [(rows[c["id"]]["verdict"], rows[c["id"]].get("reason_label")) for c in pool] == [
        ("passed" if ok else "failed", why) for ok, why, _, _ in drawn
    ]
    metrics = record("filtering", pool, "summary").stage("s").get("metrics") if pool else recorded.metrics("s")
    failed = [why for ok, why, _, _ in drawn if not ok]
    assert (metrics["passed"], metrics["failed"]) == (len(pool) - len(failed), len(failed))
    assert metrics["label_counts"] == dict(Counter(why for why in failed if why))
    if pool:
        assert math.isclose(metrics["fail_ratio"], len(failed) / len(pool))


@pytest.mark.parametrize("tier", ["full", *TIERS])
def test_capture_says_what_was_kept(tier: str):
    """Mode, seen, kept and the reason."""
    pool = pool_of([(n % 3 > 0, "low", n, "x") for n in range(200)])
    capture = record("filtering", pool, tier).stage("s")["capture"]
    assert capture["mode"] == (tier if tier in ("full", "summary") else "sampled")
    assert capture["seen"] == 200
    assert {"full": 200, "summary": 0}.get(tier, capture["kept"]) == capture["kept"]
    if capture["mode"] == "sampled":
        # A filter has no scores, so that nothing is near its cutoff.
        assert (0 if "boundary" in tier else 1) <= capture["kept"] < 200
        assert capture["reason"]


def test_beyond_a_limit_there_are_exact_metrics_a_sample_and_a_marker():
    """``max_candidates``: 10 of 100 are kept, all 100 are counted."""
    pool = pool_of([(n % 4 > 0, "low", n, "x") for n in range(100)])
    stage = record("filtering", pool, "full", max_candidates=10).stage("s")
    assert stage["capture"]["mode"] == "sampled"
    assert (stage["capture"]["seen"], stage["capture"]["kept"]) == (100, 10)
    assert {"path": "candidates", "kind": "candidates", "size": 100} in stage["capture"]["markers"]
    assert "max_candidates=10" in stage["capture"]["reason"]
    assert (stage["metrics"]["passed"], stage["metrics"]["failed"]) == (75, 25)


def test_the_same_stage_id_gives_the_same_sample():
    """The choice is seeded by the stage: what is made into an event again is the same event."""
    from xray.capture.choosing import choose
    from xray.sampling import parse_capture
    from xray.stage_types.base import Columns

    columns = Columns([f"c{n}" for n in range(500)], {"score": [float(n) for n in range(500)]})
    strategy = parse_capture("random(20) | adaptive(20)").strategy
    assert strategy is not None
    assert list(choose(strategy, columns, 7)) == list(choose(strategy, columns, 7))
    assert list(choose(strategy, columns, 7)) != list(choose(strategy, columns, 8))


@pytest.mark.parametrize("odd", ["passed", "reason_label"])
@pytest.mark.parametrize("value", ["usual", "mutable"])
def test_a_summary_of_many_equals_full_when_only_some_have_a_field(odd: str, value: str):
    """Of a large list, a field that the first candidate lacks, or one that can change later, is not overlooked."""
    pool = [{"id": n} for n in range(2000)]

    def judged() -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = [{"id": n, "passed": n % 3 == 0, "reason_label": f"l{n % 2}"} for n in range(2000)]
        if value == "usual":
            del rows[0][odd]
        else:
            rows[1700][odd] = ["changes later"]
        return rows

    found = []
    for tier in ("full", "summary"):
        result = judged()

        @xray.filtering_stage("many", id="id", capture=tier)
        def judge(candidates: list[Any], result: Any = result) -> Any:
            return result

        with recording() as recorded:
            judge(pool)
            if value == "mutable":
                result[1700][odd].clear()
        stage = recorded.stage("many")
        found.append(stage["metrics"] if tier == "summary" else recorded.metrics("many"))
    assert found[0] == found[1]
