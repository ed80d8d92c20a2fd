"""Sampling strategies: their text, what each chooses, and that no column makes them fail."""

from __future__ import annotations

import itertools
import json
import math
import os
import pickle
import subprocess
import sys
from collections import Counter, defaultdict
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xray.exceptions import ConfigurationError
from xray.sampling import (
    DEFAULT_STRATEGY,
    Capture,
    Strategy,
    adaptive,
    bottom,
    boundary,
    choose,
    parse_capture,
    per,
    per_label,
    random,
    top,
)
from xray.stage_types.base import Columns

NUMBERED = [top, bottom, random, per_label, boundary, adaptive]
COUNTS = st.integers(0, 12)
SINGLE = st.one_of(
    st.builds(lambda make, n: make(n), st.sampled_from(NUMBERED), COUNTS),
    st.builds(per, st.text(min_size=1).filter(lambda text: text.strip(". ")), COUNTS),
)
STRATEGIES = st.lists(SINGLE, min_size=1, max_size=4).map(
    lambda parts: Strategy(tuple(dict.fromkeys(part for strategy in parts for part in strategy.parts)))
)


class Opaque:
    """Something that no decoded snapshot holds."""

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = None  # type: ignore[assignment]


HOSTILE = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.binary(max_size=2),
        st.sampled_from([10**400, math.nan, -math.inf, [], {}, Opaque(), msgspec.Raw(b"\x81\xa1x\x01")]),
        st.sampled_from([msgspec.Raw(b""), msgspec.Raw(b"\xc1")]), st.sampled_from(["passed", "failed", "selected"]),
    ),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["x", "source"]), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip
NAMES = ["verdict", "reason_label", "score", "rank", "data", "source"]


@st.composite
def hostile_columns(draw: st.DrawFn) -> Columns:
    size = draw(st.integers(0, 12))
    names = draw(st.sets(st.sampled_from(NAMES)))
    # A plugin may also get the length of a column wrong.
    lengths = st.one_of(st.just(size), st.integers(0, 14))
    values = {name: draw(lengths.flatmap(lambda n: st.lists(HOSTILE, min_size=n, max_size=n))) for name in names}
    return Columns([str(n) for n in range(size)], values)


def columns(**values: list[Any]) -> Columns:
    return Columns([f"c{place}" for place in range(len(next(iter(values.values()))))], values)


# --- any strategy on any columns ----------------------------------------------------------------------------------


@given(STRATEGIES, hostile_columns(), st.integers())
def test_every_choice_is_ascending_distinct_and_repeatable(strategy: Strategy, given_columns: Columns, seed: int):
    """Whatever the columns hold, nothing is raised, and the same seed chooses the same."""
    chosen = choose(strategy, given_columns, seed)
    assert chosen == sorted(set(chosen) & set(range(len(given_columns))))
    assert chosen == choose(strategy, given_columns, seed)


@given(STRATEGIES, STRATEGIES, hostile_columns(), st.integers(0, 99))
def test_a_union_keeps_what_each_part_chooses(a: Strategy, b: Strategy, given_columns: Columns, seed: int):
    """No more and no less, whatever the order."""
    together = set(choose(a, given_columns, seed)) | set(choose(b, given_columns, seed))
    assert set(choose(a | b, given_columns, seed)) == set(choose(b | a, given_columns, seed)) == together


@given(hostile_columns(), st.integers(0, 20), st.integers(0, 9))
def test_strategies_with_a_total_keep_just_that_many(given_columns: Columns, n: int, seed: int):
    """top, bottom, random and adaptive keep n, or all where there are fewer."""
    for make in (top, bottom, random, adaptive):
        assert len(choose(make(n), given_columns, seed)) == min(n, len(given_columns))
    assert len(choose(boundary(n), given_columns, seed)) <= n


def test_a_choice_does_not_depend_on_the_hash_seed():
    """Two processes with other hash seeds choose the same."""
    program = (
        "from xray.sampling import *; from xray.stage_types.base import Columns\n"
        "c = Columns(list('abcdefghijkl'), {'reason_label': list('xyzxyzxyzxyz'), 'verdict': ['failed'] * 12})\n"
        "print([choose(s, c, 7) for s in (random(4), per('reason_label', 2), per_label(1), adaptive(5))])"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(printed) == 1


# --- each strategy ------------------------------------------------------------------------------------------------


@given(st.lists(st.none() | st.floats() | st.integers(-5, 5), min_size=1, max_size=30), st.integers(0, 35))
def test_top_and_bottom_agree_with_sorting(scores: list[Any], n: int):
    """Highest or lowest first, the earlier of equals first, and those without a finite score last."""

    def sorted_places(sign: int) -> list[int]:
        def order(place: int) -> tuple[bool, float, int]:
            score = scores[place]
            missing = score is None or math.isnan(score) or math.isinf(score)
            return missing, 0 if missing else sign * score, place

        return sorted(range(len(scores)), key=order)

    if any(score is not None and math.isfinite(score) for score in scores):
        assert choose(top(n), columns(score=scores), 1) == sorted(sorted_places(-1)[:n])
        assert choose(bottom(n), columns(score=scores), 1) == sorted(sorted_places(1)[:n])


def test_top_and_bottom_go_by_rank_and_then_by_order_where_there_are_no_scores():
    """Rank 1 is the best; a stage that has neither scores nor ranks is taken in its order."""
    ranked = columns(rank=[3, None, 1, 2], score=[None, math.nan, None, None])
    assert choose(top(2), ranked, 1) == [2, 3]
    assert choose(bottom(2), ranked, 1) == [0, 3]
    plain = columns(verdict=["passed"] * 5)
    assert choose(top(2), plain, 1) == [0, 1]
    assert choose(bottom(2), plain, 1) == [3, 4]


def test_random_gives_every_candidate_its_chance():
    """Over many seeds each of ten candidates is among three about as often as any other."""
    drawn = Counter(place for seed in range(2_000) for place in choose(random(3), columns(score=[0.0] * 10), seed))
    # 600 times each is expected, with a standard deviation of 20.5.
    assert set(drawn) == set(range(10))
    assert all(abs(count - 600) < 5 * 20.5 for count in drawn.values())


CATEGORY = st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from(["1", "a", "b", ["a"], {"k": 1}])


@given(st.lists(st.fixed_dictionaries({}, optional={"category": CATEGORY}), min_size=1, max_size=25), COUNTS)
def test_per_keeps_up_to_n_of_each_value(candidates: list[dict[str, Any]], n: int):
    """Values are equal where their JSON is; candidates without the field are one group; packed ones count the same."""
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for place, candidate in enumerate(candidates):
        groups[json.dumps(candidate.get("category"))].append(place)
    packed = [msgspec.Raw(msgspec.msgpack.encode(candidate)) for candidate in candidates]
    chosen = choose(per("data.category", n), columns(data=candidates), 3)
    assert [len(set(group) & set(chosen)) for group in groups.values()] == [min(n, len(g)) for g in groups.values()]
    assert chosen == choose(per("data.category", n), columns(data=packed), 3)


def test_per_reads_columns_first_and_then_data():
    """A column's own name wins; what is no column is a path into the candidate."""
    given_columns = columns(source=["a", "a", "b"], data=[{"source": n, "deep": [{"x": 1}]} for n in range(3)])
    assert len(choose(per("source", 1), given_columns, 1)) == 2
    assert len(choose(per("data.source", 1), given_columns, 1)) == 3
    assert len(choose(per("deep.0.x", 1), given_columns, 1)) == 1
    assert len(choose(per("nowhere", 2), given_columns, 1)) == 2


def test_per_takes_1_and_1_0_for_one_value_and_true_for_another():
    """As JSON's numbers do; NaN is one value however often it comes."""
    assert len(choose(per("x", 1), columns(x=[1, 1.0, True, "1", math.nan, float("nan"), None, None]), 1)) == 5


@given(st.lists(st.tuples(st.sampled_from(["passed", "failed", None]), st.sampled_from("abcde") | st.none()),
                min_size=1, max_size=40), COUNTS)  # fmt: skip
def test_per_label_lets_every_label_survive(judged: list[tuple[str | None, str | None]], n: int):
    """Each label keeps up to n; those without a label count by verdict."""
    groups: defaultdict[Any, list[int]] = defaultdict(list)
    for place, (verdict, label) in enumerate(judged):
        groups[label or ("no label", verdict)].append(place)
    given_columns = columns(verdict=[verdict for verdict, _ in judged], reason_label=[label for _, label in judged])
    chosen = choose(per_label(n), given_columns, 5)
    assert [len(set(group) & set(chosen)) for group in groups.values()] == [min(n, len(g)) for g in groups.values()]


@given(st.lists(st.tuples(st.sampled_from(["passed", "failed", None]), st.integers(0, 40)), min_size=1, max_size=25),
       st.integers(0, 30))  # fmt: skip
@example([("passed", 9), ("passed", 5), ("failed", 4), ("failed", 1)], 2)
@example([("passed", 0), ("passed", 10), ("failed", 11), ("failed", 18), ("failed", 19), ("failed", 30)], 2)
def test_boundary_keeps_the_scores_nearest_the_cutoff(judged: list[tuple[str | None, int]], n: int):
    """The cutoff lies between the lowest passing and the highest failing score, also where low scores pass."""
    passing = [score for verdict, score in judged if verdict == "passed"]
    failing = [score for verdict, score in judged if verdict == "failed"]
    given_columns = columns(verdict=[v for v, _ in judged], score=[float(score) for _, score in judged])
    chosen = choose(boundary(n), given_columns, 1)
    if not passing and not failing:
        assert chosen == []
        return
    if passing and failing:
        low_passes = max(passing) < min(failing)
        twice = max(passing) + min(failing) if low_passes else min(passing) + max(failing)
    else:
        twice = 2 * min(passing) if passing else 2 * max(failing)
    nearest = sorted(range(len(judged)), key=lambda place: (abs(2 * judged[place][1] - twice), place))
    assert chosen == sorted(nearest[:n])


def test_boundary_goes_by_rank_where_no_scores_divide():
    """The last kept rank is the last that passes or is selected; without verdicts it is the last of all."""
    ranks: list[int | None] = [1, 2, 3, 4, 5, 6, None]
    assert choose(boundary(2), columns(rank=ranks, verdict=["passed"] * 3 + ["failed"] * 4), 1) == [2, 3]
    assert choose(boundary(2), columns(rank=ranks, verdict=["selected"] * 2 + [None] * 5), 1) == [1, 2]
    assert choose(boundary(2), columns(rank=ranks), 1) == [4, 5]
    assert choose(boundary(9), columns(rank=ranks), 1) == [0, 1, 2, 3, 4, 5]


def test_boundary_survives_the_largest_scores():
    """The middle of two scores near the limits of a double is still between them."""
    extreme = columns(score=[1.7e308, 1.6e308, 1.5e308, -1.7e308], verdict=["passed", "passed", "failed", "failed"])
    assert choose(boundary(2), extreme, 1) == [1, 2]


def _least(sizes: list[int], deviations: list[float], n: int) -> float:
    """The least sum of (N S)² / n_h over all ways to share n, each stratum with at least one."""
    return min(
        sum((size * s) ** 2 / part for size, s, part in zip(sizes, deviations, parts, strict=True))
        for parts in itertools.product(*(range(1, size + 1) for size in sizes))
        if sum(parts) == n
    )


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=6), min_size=1, max_size=4), st.data())
def test_adaptive_allocates_so_that_the_variance_is_the_least(labels: list[list[bool]], data: st.DataObject):
    """No way of sharing the budget over the labels has a smaller sum of (N S)² / n_h."""
    sizes = [len(verdicts) for verdicts in labels]
    n = data.draw(st.integers(len(labels), sum(sizes)))
    given_columns = columns(
        verdict=["passed" if passed else "failed" for verdicts in labels for passed in verdicts],
        reason_label=[f"l{number}" for number, verdicts in enumerate(labels) for _ in verdicts],
    )
    chosen = choose(adaptive(n), given_columns, 2)
    taken = Counter(given_columns.values["reason_label"][place] for place in chosen)
    deviations = []
    for verdicts in labels:
        shares = [verdicts.count(True), verdicts.count(False), 1]
        deviations.append(math.sqrt(1 - sum((share / (len(verdicts) + 1)) ** 2 for share in shares)))
    reached = sum(
        (size * s) ** 2 / taken[f"l{number}"] for number, (size, s) in enumerate(zip(sizes, deviations, strict=True))
    )
    assert math.isclose(reached, _least(sizes, deviations, n))


def test_adaptive_looks_hardest_where_verdicts_vary():
    """A band of scores in which some pass and some fail gets more than all bands that agree."""
    scores = [place / 1000 for place in range(1000)]
    verdicts = ["failed"] * 400 + ["passed", "failed"] * 50 + ["passed"] * 500
    chosen = choose(adaptive(60), columns(score=scores, verdict=verdicts), 1)
    bands = Counter(place // 100 for place in chosen)
    assert set(bands) == set(range(10))
    assert bands[4] >= 3 * max(count for band, count in bands.items() if band != 4)


# --- text ---------------------------------------------------------------------------------------------------------


@given(STRATEGIES)
def test_the_text_of_a_strategy_reads_back(strategy: Strategy):
    """Also with field names that hold quotes, brackets, bars and control characters."""
    assert parse_capture(str(strategy)) == Capture("sampled", strategy)
    assert parse_capture(f"  {strategy}\n").strategy == strategy


@given(st.text(alphabet="toprandmper_label(),|\"'0123456789. \\\n") | st.text())
def test_any_text_is_read_or_refused(text: str):
    """Nothing but a configuration error ever comes of a text."""
    try:
        capture = parse_capture(text)
    except ConfigurationError:
        return
    assert parse_capture(str(capture)) == capture


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("full", Capture("full")),
        (" Summary ", Capture("summary")),
        ("sampled", Capture("sampled", DEFAULT_STRATEGY)),
        ("top(10)|random( 5 )", Capture("sampled", top(10) | random(5))),
        ("per(data.category, 3)", Capture("sampled", per("data.category", 3))),
        ('per(\'a b\', 3) | per("c\\"d", 1)', Capture("sampled", per("a b", 3) | per('c"d', 1))),
    ],
)
def test_what_may_be_written(text: str, expected: Capture):
    """Modes whatever their case, strategies with and without quotes around the field."""
    assert parse_capture(text) == expected


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("fulll", "full"), ("samples", "sampled"), ("topp(3)", "top"), ("top(3) | rnadom(4)", "random"),
        ("per_lable(3)", "per_label"), ("top", "top(10)"), ("per(3)", "takes a field"), ("top(a, 3)", "takes a field"),
        ("", "missing"), ("top(3) |", "missing"), ("top(3) random(4)", "'|' is missing"), ("top(-1)", "top(10)"),
        ("top(1.5)", "top(10)"), ("top(9999999999)", "whole number"), ('per(".", 3)', "dotted path"),
        ("__import__('os').system('true')", "no strategy"), ('per("\\q", 1)', "cannot be read"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_the_nearest_right_word(text: str, hint: str):
    """A text that is no strategy is refused, never evaluated."""
    with pytest.raises(ConfigurationError) as caught:
        parse_capture(text)
    assert hint in str(caught.value)
    assert caught.value.code == "bad_capture"


@pytest.mark.parametrize("n", [-1, 1.5, True, "3", None, 10**10])
def test_a_strategy_takes_whole_numbers_only(n: Any):
    """A wrong number is refused where it is written, not when the first stage ends."""
    for make in NUMBERED:
        with pytest.raises(ConfigurationError):
            make(n)
    with pytest.raises(ConfigurationError):
        per("source", n)


@pytest.mark.parametrize("wrong", [None, 3, ["top(3)"], {"mode": "full"}])
def test_what_is_no_capture(wrong: Any):
    """Only texts, strategies and captures are."""
    with pytest.raises(ConfigurationError):
        parse_capture(wrong)


def test_strategies_are_values():
    """Equal strategies are equal, hash alike, cannot be changed, and survive pickling; repeats are dropped."""
    strategy = top(3) | per("source", 2)
    assert strategy == top(3) | per("source", 2)
    assert {strategy: 1}[top(3) | per("source", 2) | top(3)] == 1
    assert pickle.loads(pickle.dumps(strategy)) == strategy
    with pytest.raises(AttributeError):
        strategy.parts = ()  # type: ignore[misc]
    with pytest.raises(TypeError):
        strategy | "top(3)"  # type: ignore[operator]


def test_captures_hold_together():
    """Sampled always has a strategy, the other modes never have one."""
    assert Capture("sampled").strategy == DEFAULT_STRATEGY
    assert parse_capture(top(3)) == Capture("sampled", top(3))
    assert parse_capture(Capture("summary")) == Capture("summary")
    with pytest.raises(ConfigurationError):
        Capture("full", top(3))
    with pytest.raises(ConfigurationError, match="sampled"):
        Capture("sample")  # type: ignore[arg-type]
