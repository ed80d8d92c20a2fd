"""Limits: what is kept stays below them, what is not kept is marked, and nothing else changes."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray.capture.items import Packed
from xray.capture.limits import MAX_MARKERS, Limits, add_marker, apply_limits, limit_value
from xray.exceptions import ConfigurationError
from xray.sampling import decoded
from xray.stage_types.base import Columns

SHOWN = ("data", "output", "returned", "reason_text")
FIXED = ("verdict", "reason_label", "score", "rank", "rank_before")

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
RAW = JSON.map(lambda value: msgspec.Raw(msgspec.msgpack.encode(value)))
CELLS = {
    "data": JSON | RAW,
    "output": JSON,
    "returned": RAW | st.none(),
    "reason_text": st.none() | st.text(max_size=60),
    "reason_label": st.none() | st.sampled_from(["a", "b", "c"]),
    "verdict": st.sampled_from(["passed", "failed", None]),
    "score": st.none() | st.floats(0, 1),
    "scores": st.none() | st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=5),
    "source": st.none() | st.text(max_size=40),
}


@st.composite
def any_columns(draw: st.DrawFn) -> Columns:
    size = draw(st.integers(0, 10))
    names = draw(st.sets(st.sampled_from(sorted(CELLS))))
    return Columns(
        [f"c{place}" for place in range(size)],
        {name: draw(st.lists(CELLS[name], min_size=size, max_size=size)) for name in sorted(names)},
        {"requested": 3},
    )


LIMITS = st.builds(
    Limits,
    max_candidates=st.integers(1, 12),
    max_value_bytes=st.integers(40, 200),
    max_stage_bytes=st.integers(1, 1_500) | st.just(10_000),
    max_text_chars=st.integers(1, 80),
)


def packed_bytes(value: Any) -> int:
    return len(msgspec.msgpack.encode(value))


def plain(columns: Columns) -> tuple[list[str], dict[str, list[Any]]]:
    return columns.candidate_id, {name: [decoded(value) for value in values] for name, values in columns.values.items()}


@given(any_columns(), LIMITS, st.integers(0, 9))
def test_what_is_kept_is_below_every_limit(columns: Columns, limits: Limits, seed: int):
    """Candidates, bytes of a value, bytes of the stage and characters of a text; the choice is repeatable."""
    limited = apply_limits(columns, limits, seed)
    kept = limited.columns
    assert len(kept) <= limits.max_candidates
    lists = [kept.candidate_id, *kept.values.values()]
    assert len(kept) == 0 or sum(map(packed_bytes, lists)) <= limits.max_stage_bytes
    for name, values in kept.values.items():
        if name not in FIXED and name != "reason_text":
            # A text that stands for a value may be longer than the smallest limits.
            assert all(packed_bytes(value) <= max(limits.max_value_bytes, 80) for value in values)
    for text in kept.values.get("reason_text", []):
        assert text is None or len(text) <= limits.max_text_chars + 60
    again = apply_limits(columns, limits, seed)
    assert (plain(again.columns), again.markers, again.kept) == (plain(kept), limited.markers, limited.kept)


@given(any_columns(), LIMITS)
def test_every_difference_has_a_marker_and_every_marker_a_difference(columns: Columns, limits: Limits):
    """Paths name the place among the kept; sizes are those of what was there."""
    before = copy.deepcopy(plain(columns))
    limited = apply_limits(columns, limits, 1)
    assert plain(columns) == before
    assert limited.columns.facts == {"requested": 3}
    assert list(limited.kept) == sorted(set(limited.kept))
    assert limited.columns.candidate_id == [columns.candidate_id[place] for place in limited.kept]
    assert set(limited.columns.values) == set(columns.values)
    changed = set()
    for name, values in limited.columns.values.items():
        for place, (value, origin) in enumerate(zip(values, limited.kept, strict=True)):
            was = columns.values[name][origin]
            if plain(Columns(["x"], {"v": [value]})) == plain(Columns(["x"], {"v": [was]})):
                continue
            assert name not in FIXED
            changed.add(f"candidates.{place}.{name}")
            assert type(value) is (msgspec.Raw if isinstance(was, msgspec.Raw) else str) or name not in SHOWN
            assert "[xray: " in str(decoded(value)) if name in SHOWN else value is None
            sizes = {m["size"] for m in limited.markers if m["path"] == f"candidates.{place}.{name}"}
            assert sizes & {packed_bytes(was), len(was) if isinstance(was, str) else -1}
    marked = {marker["path"] for marker in limited.markers if marker["kind"] != "candidates"}
    assert marked == changed
    dropped = [marker for marker in limited.markers if marker["kind"] == "candidates"]
    assert bool(dropped) == (len(limited.columns) < len(columns))
    assert all(marker["path"] == "candidates" and marker["size"] <= len(columns) for marker in dropped)
    assert (limited.reason is None) == (not limited.markers)


def test_nothing_changes_below_the_limits():
    """The columns given are the columns kept: the common case copies nothing."""
    columns = Columns(["a", "b"], {"data": [{"x": 1}, msgspec.Raw(b"\xc0")], "reason_text": ["why", None]})
    limited = apply_limits(columns, Limits(), 1)
    assert limited.columns is columns
    assert (limited.reason, limited.markers, list(limited.kept)) == (None, [], [0, 1])


def test_too_many_candidates_leave_a_sample_with_every_label():
    """The best, both sides of the cutoff and rare labels survive, and the limit is used to the full."""
    size = 3_000
    labels = [None if place < 900 else "rare" if place == 2_345 else "common" for place in range(size)]
    columns = Columns(
        [str(place) for place in range(size)],
        {
            "score": [(size - place) / size for place in range(size)],
            "verdict": ["passed" if place < 900 else "failed" for place in range(size)],
            "reason_label": labels,
        },
    )
    limited = apply_limits(columns, Limits(max_candidates=500), 1)
    assert len(limited.columns) == 500
    assert {*range(100), *range(850, 950), 2_345} <= set(limited.kept)
    assert limited.markers == [{"path": "candidates", "kind": "candidates", "size": 3_000}]
    assert limited.reason is not None
    assert "3000" in limited.reason
    assert "max_candidates=500" in limited.reason


def test_more_labels_than_candidates_may_be_kept():
    """As many as may be kept are, although not each label can survive."""
    columns = Columns(list(map(str, range(50))), {"reason_label": list(map(str, range(50)))})
    assert len(apply_limits(columns, Limits(max_candidates=7), 1).columns) == 7


def test_a_full_stage_drops_its_largest_values_first():
    """Ids, verdicts and small values stay; each value that went has a marker with its size."""
    columns = Columns(
        ["a", "b", "c"],
        {
            "verdict": ["passed"] * 3,
            "data": ["s" * 100, "l" * 900, "m" * 500],
            "scores": [None, {"x" * 300: 1.0}, None],
        },
    )
    limited = apply_limits(columns, Limits(max_stage_bytes=600), 1)
    assert limited.columns.candidate_id == ["a", "b", "c"]
    small, *others = limited.columns.values["data"]
    assert small == "s" * 100
    assert others == [
        "[xray: value of 903 bytes, the stage was full]",
        "[xray: value of 503 bytes, the stage was full]",
    ]
    assert limited.columns.values["scores"] == [None, {"x" * 300: 1.0}, None]
    assert limited.markers == [
        {"path": "candidates.1.data", "kind": "stage", "size": 903},
        {"path": "candidates.2.data", "kind": "stage", "size": 503},
    ]


def test_a_stage_whose_ids_alone_are_too_many_loses_candidates():
    """The largest first, with a marker that says how many there were."""
    columns = Columns(["a", "b" * 5_000, "c"], {"verdict": ["passed", "failed", "passed"]})
    limited = apply_limits(columns, Limits(max_stage_bytes=1_000), 1)
    assert limited.columns.candidate_id == ["a", "c"]
    assert list(limited.kept) == [0, 2]
    assert limited.markers == [{"path": "candidates", "kind": "candidates", "size": 3}]


def test_values_are_not_replaced_with_more_than_they_were():
    """Where the ids fill the stage, dropping small values would only add to it."""
    columns = Columns(["a" * 700, "b" * 100], {"data": [{"x": 1}, {"y": 2}]})
    limited = apply_limits(columns, Limits(max_stage_bytes=500), 1)
    assert limited.columns.values["data"] == [{"y": 2}]
    assert limited.markers == [{"path": "candidates", "kind": "candidates", "size": 2}]


def test_paths_follow_the_candidates_that_are_left():
    """A value of the third candidate is that of the second, where the first is not kept."""
    columns = Columns(["a" * 5_000, "b", "c"], {"data": [1, 2, "x" * 300], "reason_text": [None, None, "y" * 90]})
    limited = apply_limits(columns, Limits(max_value_bytes=200, max_stage_bytes=1_000, max_text_chars=80), 1)
    assert limited.columns.candidate_id == ["b", "c"]
    assert limited.markers == [
        {"path": "candidates", "kind": "candidates", "size": 3},
        {"path": "candidates.1.data", "kind": "value", "size": 303},
        {"path": "candidates.1.reason_text", "kind": "text", "size": 90},
        {"path": "candidates.1.reason_text", "kind": "stage", "size": 115},
    ]


def test_a_long_reason_text_is_cut_visibly():
    """Its beginning stays, and its length is told in characters."""
    limited = apply_limits(Columns(["a"], {"reason_text": ["ä" * 3_000]}), Limits(), 1)
    assert limited.columns.values["reason_text"] == ["ä" * 2_000 + "… [xray: text of 3000 characters]"]
    assert limited.markers == [{"path": "candidates.0.reason_text", "kind": "text", "size": 3_000}]


def test_one_large_value_among_thousands_is_found():
    """Wherever it stands, although the others are looked at in runs."""
    for place in (0, 2_500, 4_999):
        values: list[Any] = [msgspec.Raw(msgspec.msgpack.encode({"title": "x" * 90}))] * 5_000
        values[place] = msgspec.Raw(msgspec.msgpack.encode("y" * 300_000))
        for column in (values, Packed(msgspec.Raw(msgspec.msgpack.encode(values)))):
            limited = apply_limits(Columns([""] * 5_000, {"data": column}), Limits(max_value_bytes=200_000), 1)  # type: ignore[dict-item]
            assert limited.markers == [{"path": f"candidates.{place}.data", "kind": "value", "size": 300_005}]
            assert msgspec.msgpack.decode(limited.columns.values["data"][place]) == "[xray: value of 300005 bytes]"
            assert len(limited.columns.values["data"]) == 5_000


def test_markers_stay_few():
    """After a hundred, one more counts the others."""
    columns = Columns([""] * 250, {"data": ["x" * 100] * 250})
    markers = apply_limits(columns, Limits(max_value_bytes=50), 1).markers
    assert len(markers) == MAX_MARKERS + 1
    assert markers[-1] == {"path": "", "kind": "more", "size": 150}
    add_marker(markers, "input", "value", 9)
    assert markers[-1]["size"] == 151


@given(JSON | RAW, st.integers(1, 60))
def test_one_value_is_held_to_its_limit(value: Any, limit: int):
    """At the limit it stays as it is; beyond, a text in the same form says how large it was."""
    markers: list[dict[str, Any]] = []
    size = packed_bytes(value)
    held = limit_value(value, limit, "input", markers)
    if size <= limit:
        assert held is value
        assert markers == []
    else:
        assert type(held) is (msgspec.Raw if isinstance(value, msgspec.Raw) else str)
        assert decoded(held) == f"[xray: value of {size} bytes]"
        assert markers == [{"path": "input", "kind": "value", "size": size}]


@pytest.mark.parametrize("value", [{1, 2}, object(), 2**70, [float("nan")], {"x": lambda: 1}, "\ud800"])
def test_values_that_no_encoder_takes_are_measured_too(value: Any):
    """Nothing that gets this far makes the limits fail."""
    assert limit_value(value, 1_000, "input", []) is value
    assert apply_limits(Columns(["a"], {"data": [value], "reason_text": [value]}), Limits(), 1).markers == []
    assert len(apply_limits(Columns(["a"], {"data": [value]}), Limits(1, 1, 1, 1), 1).columns) == 0


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "100", None, True])
def test_a_limit_is_a_whole_number_above_0(wrong: Any):
    """A limit that cannot be is refused with its name."""
    for name in ("max_candidates", "max_value_bytes", "max_stage_bytes", "max_text_chars"):
        with pytest.raises(ConfigurationError, match=name):
            Limits(**{name: wrong})
