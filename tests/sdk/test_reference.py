"""What is recorded equals what an independent reference says, for every type of stage, at every tier.

The reference is written from the definitions, over plain rows, with NumPy for statistics and none of X-Ray's code.
"""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xray
from tests.sdk.recording import EVERY_WAY, columns_of, recording
from xray.plugins import installed

pytestmark = EVERY_WAY

TIERS = ("full", "summary", "sampled", "top(2) | per_label(1)", "random(3)")

rows = st.lists(
    st.fixed_dictionaries(
        {
            "passed": st.booleans(),
            "reason_label": st.sampled_from([None, "low", "high"]),
            "score": st.one_of(st.none(), st.integers(-9, 9), st.floats(-1e6, 1e6)),
            "source": st.sampled_from([None, "index", "cache"]),
            "text": st.text("ab ", max_size=4),
        }
    ),
    max_size=25,
).map(lambda found: [{"id": f"c{n}", **row} for n, row in enumerate(found)])


def record(stage_type: str, pool: list[Any], out: Any, tier: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The candidates that were kept, by id, and the metrics: the sender's, else those of what it sent."""
    with recording() as recorded:
        xray.stage(stage_type, "s", capture=tier)(lambda candidates: out)(pool)
    stage = recorded.stage("s")
    metrics = stage.get("metrics")
    if metrics is None:
        assert stage["capture"]["kept"] == stage["capture"]["seen"]
        metrics = installed().stage_type(stage_type).measure(columns_of(stage))
    assert len(columns_of(stage)) <= stage["capture"]["seen"] == len({row["id"] for row in [*pool, *out]})
    return recorded.rows("s"), metrics


def statistics(scores: list[float | None]) -> dict[str, Any]:
    given = np.array(sorted(float(s) for s in scores if s is not None))
    if not len(given):
        return {"nulls": len(scores)}
    found: dict[str, Any] = {
        "nulls": len(scores) - len(given),
        "ties": len(given) - len(np.unique(given)),
        "score": {"min": given.min(), "max": given.max(), "mean": given.mean(), "std": given.std()}
        | {f"p{q}": np.percentile(given, q) for q in (10, 50, 90, 99)},
    }
    if len(given) > 1:
        found["top_margin"] = given[-1] - given[-2]
    return found


def tau(pairs: list[tuple[int, int]]) -> float | None:
    if len(pairs) < 2:
        return None
    signs = [np.sign(a[0] - b[0]) * np.sign(a[1] - b[1]) for a, b in combinations(pairs, 2)]
    return float(sum(signs)) / len(signs)


def assert_same(metrics: dict[str, Any], expected: dict[str, Any]) -> None:
    for name, value in expected.items():
        if isinstance(value, dict):
            assert set(metrics[name]) == set(value), name
            for key, number in value.items():
                assert metrics[name][key] == pytest.approx(number, rel=1e-9, abs=1e-6), (name, key)
        elif isinstance(value, (int, float)):
            assert metrics[name] == pytest.approx(value, rel=1e-9, abs=1e-6), name
        else:
            assert metrics[name] == value, name


@settings(max_examples=15, deadline=None)
@given(rows, st.sampled_from(TIERS))
def test_filtering(pool: list[dict[str, Any]], tier: str):
    """Verdicts and labels of each candidate; counts, ratios and shares of all."""
    kept, metrics = record("filtering", [{"id": row["id"]} for row in pool], pool, tier)
    by_id = {row["id"]: row for row in pool}
    for key, row in kept.items():
        assert row["verdict"] == ("passed" if by_id[key]["passed"] else "failed")
        assert row.get("reason_label") == by_id[key]["reason_label"]
    failed = [row for row in pool if not row["passed"]]
    labels = Counter(row["reason_label"] for row in failed if row["reason_label"])
    expected: dict[str, Any] = {
        "input_count": len(pool),
        "passed": len(pool) - len(failed),
        "failed": len(failed),
        "label_counts": dict(labels),
        "label_share": {label: n / len(failed) for label, n in labels.items()},
        "unlabelled": len(failed) - labels.total(),
    }
    if pool:
        expected["fail_ratio"] = len(failed) / len(pool)
    assert_same(metrics, expected)


@settings(max_examples=15, deadline=None)
@given(rows, st.sampled_from(TIERS))
def test_scoring(pool: list[dict[str, Any]], tier: str):
    """The score of each candidate; statistics over all."""
    kept, metrics = record("scoring", [{"id": row["id"]} for row in pool], pool, tier)
    scores = {row["id"]: row["score"] for row in pool}
    for key, row in kept.items():
        assert row.get("score") == scores[key]
    assert_same(metrics, {"input_count": len(pool), **statistics(list(scores.values()))})
    if "histogram" in metrics:
        assert sum(metrics["histogram"]["counts"]) == sum(score is not None for score in scores.values())


@settings(max_examples=15, deadline=None)
@given(rows, st.sampled_from(TIERS), st.randoms(use_true_random=False), st.integers(0, 25))
def test_ranking(pool: list[dict[str, Any]], tier: str, rng: Any, cut: int):
    """Ranks before and after of each candidate; displacement, overlap and Kendall's tau over all."""
    out = rng.sample(pool, len(pool))[: max(1, cut)]
    kept, metrics = record("ranking", pool, out, tier)
    after = {row["id"]: place + 1 for place, row in enumerate(out)}
    before = {row["id"]: place + 1 for place, row in enumerate(pool)}
    for key, row in kept.items():
        assert (row.get("rank"), row["rank_before"]) == (after.get(key), before[key])
    expected: dict[str, Any] = {"input_count": len(pool), "output_count": len(out)}
    if out:
        pairs = [(before[key], rank) for key, rank in after.items()]
        expected["mean_displacement"] = float(np.mean([abs(a - b) for a, b in pairs]))
        moved, counted = [b - a for b, a in pairs], metrics["displacement"]
        assert counted["counts"] == np.histogram(moved, counted["edges"])[0].tolist()
        assert sum(counted["counts"]) == len(moved)
        assert len(counted["counts"]) <= 20
        top = {key for key, rank in after.items() if rank <= 10}
        expected["top10_overlap"] = sum(before[key] <= 10 for key in top) / len(top)
        if (found := tau(pairs)) is not None:
            expected["kendall_tau"] = found
        if len(out) > 1 and out[0]["score"] is not None and out[1]["score"] is not None:
            expected["top_margin"] = out[0]["score"] - out[1]["score"]
    assert_same(metrics, expected)


@settings(max_examples=15, deadline=None)
@given(rows, st.sampled_from(TIERS))
def test_retrieval(pool: list[dict[str, Any]], tier: str):
    """Rank, score and source of each candidate; sources, duplicates and statistics over all."""
    with recording() as recorded:
        xray.retrieval_stage("s", capture=tier)(lambda query: pool)("q")
    stage = recorded.stage("s")
    metrics = stage.get("metrics") or installed().stage_type("retrieval").measure(columns_of(stage))
    by_id = {row["id"]: (place + 1, row) for place, row in enumerate(pool)}
    for key, row in recorded.rows("s").items():
        place, given_row = by_id[key]
        assert (row["rank"], row.get("score"), row.get("source")) == (place, given_row["score"], given_row["source"])
    expected: dict[str, Any] = {"returned": len(pool), "duplicates": 0}
    if sources := Counter(row["source"] for row in pool if row["source"]):
        expected["sources"] = dict(sources)
    if any(row["score"] is not None for row in pool):
        expected |= statistics([row["score"] for row in pool])
    assert_same(metrics, expected)


@settings(max_examples=15, deadline=None)
@given(rows.filter(bool), st.sampled_from(TIERS), st.data())
def test_selection(pool: list[dict[str, Any]], tier: str, data: st.DataObject):
    """Who was selected; how many, which, and by what margin."""
    picked = data.draw(st.lists(st.sampled_from(pool), unique_by=lambda row: row["id"], max_size=5))
    kept, metrics = record("selection", pool, picked, tier)
    chosen = {row["id"] for row in picked}
    for key, row in kept.items():
        assert row.get("verdict") == ("selected" if key in chosen else None)
    expected: dict[str, Any] = {
        "input_count": len(pool),
        "selected": len(picked),
        "selected_ids": [row["id"] for row in pool if row["id"] in chosen],
    }
    inside = [row["score"] for row in picked if row["score"] is not None]
    outside = [row["score"] for row in pool if row["id"] not in chosen and row["score"] is not None]
    if inside and outside:
        expected["margin"] = min(inside) - max(outside)
    assert_same(metrics, expected)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.text("ab ", max_size=4), max_size=20), st.sampled_from(TIERS))
def test_generation(texts: list[str], tier: str):
    """How much was generated, how much of it is empty or said twice, and how long it is."""
    with recording() as recorded:
        xray.generation_stage("s", capture=tier)(lambda prompt: texts)("p")
    stage = recorded.stage("s")
    metrics = stage.get("metrics") or installed().stage_type("generation").measure(columns_of(stage))
    expected: dict[str, Any] = {
        "generated": len(texts),
        "empty": sum(not text.strip() for text in texts),
        "duplicates": len(texts) - len(set(texts)),
    }
    if texts:
        expected["mean_length"] = math.fsum(map(len, texts)) / len(texts)
    assert_same(metrics, expected)
