"""Timelines, funnels, charts and colours, worked out by hand."""

from __future__ import annotations

import json
import math
import re
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import xray_server.dashboard as package
from xray_server.dashboard import colours, figures, filters
from xray_server.dashboard.jsonview import MAX_CHARACTERS, json_text
from xray_server.dashboard.links import candidate_url, changed
from xray_server.dashboard.sankey import STAGE_WIDTH, sankey
from xray_server.dashboard.waterfall import MAX_LANES, waterfall

START = 1_800_000_000_000
RUN = {"id": "r", "started_at": START, "duration_ms": 1000.0}


def stage(number, start, took, name="", parent=None, status="success"):
    return {
        "id": f"s{number}", "order": number, "name": name or f"stage {number}", "type": "raw", "parent_id": parent,
        "started_at": START + start, "duration_ms": float(took), "status": status,
    }  # fmt: skip


# --- the timeline -----------------------------------------------------------------------------------------------


def test_stages_lie_where_they_were():
    """In thousandths of the run, each below its parent, with how long it took."""
    found = waterfall(RUN, [stage(0, 0, 500), stage(1, 100, 200, parent="s0"), stage(2, 500, 250)])
    assert [(lane.name, lane.depth, lane.took_ms) for lane in found.lanes] == [
        ("stage 0", 0, 500), ("stage 1", 1, 200), ("stage 2", 0, 250)
    ]  # fmt: skip
    assert [(span.start, span.width) for lane in found.lanes for span in lane.spans] == [
        (0, 500),
        (100, 200),
        (500, 250),
    ]
    assert found.took_ms == 1000


def test_gaps_are_where_no_outermost_stage_ran():
    """Between stages and at the end; a stage inside of another one fills nothing."""
    stages = [stage(0, 0, 300), stage(1, 400, 200), stage(2, 350, 10, parent="s0")]
    found = waterfall(RUN, stages)
    assert [(gap.start, gap.width) for gap in found.gaps] == [(300, 100), (600, 400)]
    assert found.idle_ms == 500


def test_stages_that_run_at_once_leave_no_gap():
    """The union of them counts."""
    found = waterfall(RUN, [stage(0, 0, 600), stage(1, 100, 900), stage(2, 200, 50)])
    assert found.gaps == []


def test_a_short_run_has_no_gaps():
    """Starts are known to the millisecond: what lies between them is not."""
    assert waterfall({"id": "r", "started_at": START, "duration_ms": 3.0}, [stage(0, 0, 1)]).gaps == []


def test_repetitions_share_a_lane_and_failures_stay_to_be_seen():
    """Three thousand of them are few bars; the one that failed is drawn last."""
    stages = [stage(0, 0, 1000, "loop")]
    stages += [stage(n, n * 0.3, 0.3, "step", "s0", "failure" if n == 1500 else "success") for n in range(1, 3001)]
    found = waterfall(RUN, stages)
    loop, step = found.lanes
    assert (step.count, step.failures, step.depth) == (3000, 1, 1)
    assert len(step.spans) < 50
    assert [span.failed for span in step.spans].count(True) == 1
    assert step.spans[-1].failed
    assert step.spans[-1].stage_id == "s1500"
    assert loop.took_ms == 1000


def test_stages_too_quick_for_the_clock_follow_each_other_in_their_order():
    """They began in the same millisecond; their durations and their order say where they lie."""
    run = {"id": "r", "started_at": START, "duration_ms": 1.0}
    found = waterfall(run, [stage(0, 0, 0.25), stage(1, 0, 0.5), stage(2, 0, 0.25)])
    assert [(span.start, span.width) for lane in found.lanes for span in lane.spans] == [
        (0, 250),
        (250, 500),
        (750, 250),
    ]


def test_very_many_lanes_are_cut_and_counted():
    """What is not shown is said."""
    found = waterfall(RUN, [stage(n, n, 1) for n in range(200)])
    assert len(found.lanes) == MAX_LANES
    assert found.hidden == 200 - MAX_LANES


@given(
    st.lists(
        st.tuples(
            st.integers(-5000, 5000), st.floats(0, 1e7), st.sampled_from(["a", "b", "c"]), st.integers(-1, 30),
            st.sampled_from(["success", "failure", None]),
        ),
        max_size=30,
    ),
    st.one_of(st.none(), st.floats(0, 1e6)),
)  # fmt: skip
def test_every_bar_lies_within_the_run(given_stages, duration):
    """Whatever senders say about times, parents that are not there included."""
    stages = [
        stage(n, start, took, name, None if parent < 0 or parent >= n else f"s{parent}", status)
        for n, (start, took, name, parent, status) in enumerate(given_stages)
    ]
    found = waterfall({"id": "r", "started_at": START, "duration_ms": duration}, stages)
    assert sum(lane.count for lane in found.lanes) == len(stages)
    for span in [*found.gaps, *(span for lane in found.lanes for span in lane.spans)]:
        assert -1e-6 <= span.start <= 1000
        assert 0 < span.width <= 1000 - span.start + 1e-6


# --- the funnel -------------------------------------------------------------------------------------------------


def funnel_row(name, came, went, dropped=None, kind="filtering", labels=None):
    return {
        "stage_id": name, "parent_id": None, "path": name, "type": kind, "in": came, "out": went, "dropped": dropped,
        "labels": labels or {},
    }  # fmt: skip


def links_of(figure):
    trace = figure.data[0]
    names = trace["node"]["label"]
    link = trace["link"]
    pairs = zip(link["source"], link["target"], link["value"], strict=True)
    return {(names[source], names[target]): value for source, target, value in pairs}


def test_what_goes_on_what_is_dropped_and_what_is_lost_between():
    """Labels by count, those without one, and what the next stage never saw."""
    rows = [
        funnel_row("search", None, 100, kind="retrieval"),
        funnel_row("filter", 100, 40, 60, labels={"dear": 50, "old": 7}),
        funnel_row("rank", 30, 30, 0),
    ]
    figure = sankey({"stages": rows})
    assert links_of(figure) == {
        ("search", "filter"): 100, ("filter", "dear"): 50, ("filter", "old"): 7, ("filter", "no label"): 3,
        ("filter", "rank"): 30, ("filter", "not seen by rank"): 10, ("rank", "came out"): 30,
    }  # fmt: skip
    assert figure.data[0]["node"]["color"][figure.data[0]["node"]["label"].index("dear")] == colours.label_colour(
        "dear"
    )
    assert sorted(map(tuple, figure.rows)) == sorted((a, b, value) for (a, b), value in links_of(figure).items())


def test_a_funnel_has_room_for_the_name_of_each_stage():
    """However narrow the page is; what does not fit scrolls."""
    rows = [funnel_row(f"stage_{n}", 9, 9, 0) for n in range(6)]
    few, many = sankey({"stages": rows[:2]}), sankey({"stages": rows})
    assert many.min_width - few.min_width == 4 * STAGE_WIDTH
    assert few.min_width == 3 * STAGE_WIDTH


def test_many_labels_are_one_branch_beyond_the_first():
    """Nothing of the count is lost."""
    counts = {f"label {n}": n + 1 for n in range(50)}
    total = sum(counts.values())
    figure = sankey({"stages": [funnel_row("a", total + 5, 5, total, labels=counts), funnel_row("b", 5, 5, 0)]})
    links = links_of(figure)
    assert sum(value for (source, _), value in links.items() if source == "a") == total + 5
    assert ("a", "45 other labels") in links


@pytest.mark.parametrize("rows", [[], [funnel_row("a", 5, 5)], [funnel_row("a", None, None), funnel_row("b", 0, 0)]])
def test_there_is_no_funnel_without_two_stages_that_count(rows):
    """Nothing to draw is no figure."""
    assert sankey({"stages": rows}) is None


# --- charts and values ------------------------------------------------------------------------------------------


def test_a_figure_s_json_cannot_end_its_element_and_has_no_nan():
    """Tags, line separators, NaN and infinities."""
    figure = figures.Figure("f", "t", [{"x": [math.nan, math.inf, 1.5], "text": "</script><!--\u2028&"}])
    text = str(figures.as_json(figure))
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text)["data"] == [{"x": [None, None, 1.5], "text": "</script><!--\u2028&"}]


_PLAIN = st.text(st.characters(exclude_categories=("C", "Z")), max_size=5000)
_SCALARS = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(-1e300, 1e300) | _PLAIN


@given(st.recursive(_SCALARS, lambda inner: st.lists(inner) | st.dictionaries(_PLAIN, inner), max_leaves=40))
def test_a_value_is_shown_whole_or_says_that_it_is_cut(value):
    """What is not said to be cut is the whole JSON."""
    text, is_cut = json_text(value)
    assert len(text) <= MAX_CHARACTERS * 2 + 10
    assert is_cut or json.loads(text) == value


def test_deep_and_wide_values_are_cut_with_a_mark():
    """Depth, entries and length."""
    deep = []
    for _ in range(200):
        deep = [deep]
    for value in (deep, list(range(100_000)), {str(n): n for n in range(100_000)}, "y" * 3_000_000):
        text, is_cut = json_text(value)
        assert is_cut
        assert "…" in text


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (1234567, "candidates", "1,234,567"), (0.59421, "ratio", "59.4%"), (0.99999, "ratio", "&gt; 99.9%"),
        (0.25, "ms", "250 µs"), (1234, "ms", "1.23 s"), (1_500_000, "bytes", "1.5 MB"), (0.123456, "score", "0.1235"),
        (1e300, "", "1e+300"), (12, "tokens", "12 tokens"),
    ],
)  # fmt: skip
def test_numbers_have_units(value, unit, words):
    """In three or four digits, and in the unit that suits them."""
    assert f">{words}</span>" in filters.number(value, unit)


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [(3, "", "+3"), (-1.5, "characters", "-1.5 characters"), (0, "", "0"), (-0.125, "ratio", "-12.5 points"),
     (0.5, "ms", "+500 µs"), (-2000.0, "ms", "-2.00 s"), (1234567, "bytes", "+1.23 MB")],
)  # fmt: skip
def test_changes_have_their_sign(value, unit, words):
    """A difference of shares is in points: 10 % more of a share is something else."""
    assert filters.change(value, unit) == f'<span class="number">{words}</span>'


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "12", True, [], {}])
def test_what_is_no_number_is_a_dash(value):
    """Never 'nan', never 'None'."""
    assert filters.number(value) == filters.NOTHING


@given(st.text(min_size=1))
def test_every_label_has_one_colour(label):
    """By its name alone; the class, the figure's colour and the mark go together."""
    chip = filters.label(label)
    assert f"label-{colours.label_number(label)}" in chip
    assert colours.label_colour(label) == f"var(--label-{colours.label_number(label)})"


def test_addresses_keep_what_is_given_and_drop_the_cursor():
    """A cursor belongs to the order that it came from."""
    given_parameters = {"label": "a b&c", "cursor": "x", "tag": ["1", "2"]}
    assert changed("/", given_parameters, sort="-k") == "/?label=a+b%26c&tag=1&tag=2&sort=-k"
    assert changed("/", given_parameters, label=None, tag=None) == "/"
    assert candidate_url("r", "a/b?c") == "/runs/r/candidates/a/b%3Fc"


# --- colours that differ for everybody --------------------------------------------------------------------------

_STYLE = (Path(package.__file__).parent / "static" / "style.css").read_text()

# Linear RGB as seen with full protanopia, deuteranopia and tritanopia: Machado, Oliveira and Fernandes, "A
# Physiologically-based Model for Simulation of Color Vision Deficiency", IEEE TVCG 15(6), 2009.
_SEEN = {
    "everybody": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.3039)),
}


def token(name, theme):
    light, dark = re.search(rf"--{name}: light-dark\((#\w+), (#\w+)\);", _STYLE).groups()
    text = light if theme == "light" else dark
    return [int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def linear(colour):
    return [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]


def luminance(colour):
    red, green, blue = linear(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def lab(colour):
    red, green, blue = colour
    x = 0.4124 * red + 0.3576 * green + 0.1805 * blue
    y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    z = 0.0193 * red + 0.1192 * green + 0.9505 * blue
    f = [c ** (1 / 3) if c > 0.008856 else 7.787 * c + 16 / 116 for c in (x / 0.95047, y, z / 1.08883)]
    return 116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])


def distance(one, other, who):
    seen = [
        lab([min(1, max(0, sum(a * b for a, b in zip(row, linear(each), strict=True)))) for row in _SEEN[who]])
        for each in (one, other)
    ]
    return math.dist(*seen)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("who", _SEEN)
def test_verdicts_differ_for_everybody(theme, who):
    """Passed, failed, selected and none are at least 18 apart in CIELAB, with any colour blindness."""
    names = ("passed", "failed", "selected", "none")
    apart = {
        pair: distance(token(f"verdict-{pair[0]}", theme), token(f"verdict-{pair[1]}", theme), who)
        for pair in combinations(names, 2)
    }
    assert min(apart.values()) >= 18, apart


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_stand_out_from_the_page(theme):
    """Marks at least 3 to 1 (WCAG 1.4.11), text at least 4.5 to 1."""
    for ground in ("page", "raised"):
        for name in ("text", "quiet", "accent"):
            assert contrast(token(name, theme), token(ground, theme)) >= 4.5, (name, ground)
        for name in ("verdict-passed", "verdict-failed", "verdict-selected", "verdict-none"):
            assert contrast(token(name, theme), token(ground, theme)) >= 3, (name, ground)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_labels_differ(theme):
    """All pairs of the labels' colours can be told apart."""
    tokens = [token(f"label-{n}", theme) for n in range(colours.LABEL_COLOURS)]
    close = {
        pair: distance(tokens[pair[0]], tokens[pair[1]], "everybody")
        for pair in combinations(range(colours.LABEL_COLOURS), 2)
    }
    assert min(close.values()) >= 12, min(close, key=close.get)
    assert min(contrast(each, token("raised", theme)) for each in tokens) >= 2.2
