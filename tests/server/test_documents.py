"""Merging analyses of a run: in any order, grouping and repetition the same comes out."""

from __future__ import annotations

import copy

from hypothesis import given
from hypothesis import strategies as st

from xray_server.documents import ANALYSTS, analysis_of, merge_into

WORDS = st.builds(
    lambda minute, stage, confidence: {
        "analyzed_at": f"2026-11-01T00:0{minute}:00.000Z", "faulty_stage": stage, "confidence": confidence,
    },
    st.integers(0, 4), st.sampled_from((None, "a", "b")), st.sampled_from((0.1, 0.9)),
)  # fmt: skip
ANALYSES = st.dictionaries(st.sampled_from(ANALYSTS), WORDS, min_size=1).map(analysis_of)
ANYTHING = st.one_of(ANALYSES, st.sampled_from(({"faulty_stage": "x"}, "text", 3, {"statistics": 4}, [])))


def merged(*analyses):
    document = {}
    for analysis in analyses:
        merge_into(document, {"analysis": copy.deepcopy(analysis)})
    return document.get("analysis")


@given(st.lists(ANYTHING, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_order_grouping_and_repetition_do_not_matter(analyses, random):
    """Whatever else an import may have brought as an analysis."""
    expected = merged(*analyses)
    shuffled = [*analyses, random.choice(analyses)]
    random.shuffle(shuffled)
    assert merged(*shuffled) == expected
    cut = random.randrange(len(analyses) + 1)
    parts = [part for part in (merged(*analyses[:cut]), merged(*analyses[cut:])) if part is not None]
    assert merged(*parts) == expected


@given(st.lists(ANALYSES, min_size=1, max_size=5))
def test_the_last_word_of_each_analyst_stays(analyses):
    """And what is in front was said last of all."""
    found = merged(*analyses)
    for by in ANALYSTS:
        times = [each[by]["analyzed_at"] for each in analyses if by in each]
        assert (found[by]["analyzed_at"] if by in found else None) == max(times, default=None)
    assert found["analyzed_at"] == max(found[by]["analyzed_at"] for by in ANALYSTS if by in found)
    assert found.get("faulty_stage") == found[found["by"]]["faulty_stage"]


PARTIALS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.just("a"),
        "name": st.none() | st.text(max_size=3),
        "tags": st.lists(st.text(max_size=2), max_size=2),
        "metadata": st.dictionaries(st.text(max_size=2), st.none() | st.integers(), max_size=2),
        "metrics": st.none() | st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
        "metrics_over": st.integers(0, 5),
        "analysis": st.just({"statistics": {"reason": "slow", "analyzed_at": "2026-11-01T00:00:00.000Z"}}),
    },
)


@given(PARTIALS)
def test_merging_into_nothing_is_merging(partial):
    """What came first is treated as what comes to a document that has something already."""
    came = copy.deepcopy(partial)
    into_something = merge_into({"id": "a", "order": 1}, partial)
    assert merge_into({"id": "a"}, partial) | {"order": 1} == into_something
    assert partial == came
