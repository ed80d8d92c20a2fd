"""Where an error of a question is marked in its text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_server.dashboard.places import locate, malformed

TEXT = """{
  "pipeline": {"label": "shop", "input.product.category": "x"},
  "stage": {"$failRatoi": {"$gt": 0.9}, "name": {"$in": ["a", 5]}},
  "stages": [{"type": "filtering"}, {"typ": "scoring"}],
  "limit": 5000
}"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("stage.$failRatoi", '"$failRatoi": {"$gt": 0.9}'),
        ("stage.$failRatoi.$gt", '"$gt": 0.9'),
        ("stage.name.$in[1]", "5"),
        ("stages[1].typ", '"typ": "scoring"'),
        ("pipeline.input.product.category", '"input.product.category": "x"'),
        ("limit", '"limit": 5000'),
        ("limit.below", '"limit": 5000'),
        ("candidate.score", None),
        ("stag", None),
        ("", None),
        (None, None),
    ],
)
def test_a_path_leads_to_its_place(path, expected):
    place = locate(TEXT, path)
    assert (None if place is None else TEXT[place.start : place.end]) == expected


def test_a_place_knows_its_line_and_column():
    place = locate(TEXT, "limit")
    assert (place.line, place.column) == (5, 3)


def test_a_value_over_several_lines_is_marked_at_its_key():
    text = '{"stage": {\n  "type": "filtering"\n}}'
    place = locate(text, "stage")
    assert text[place.start : place.end] == '"stage"'


def test_where_the_key_is_wrong_it_alone_is_marked():
    place = locate(TEXT, "stage.$failRatoi", key_only=True)
    assert TEXT[place.start : place.end] == '"$failRatoi"'


def test_of_a_repeated_key_the_last_one_counts_as_it_does_for_the_decoder():
    text = '{"limit": 1, "limit": 2}'
    place = locate(text, "limit")
    assert text[place.start : place.end] == '"limit": 2'


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ('{"stage": {type: 1}}', "type:"),
        ('{"stage": 1,}', "}"),
        ('{"a": tru}', "tru"),
        ('{"a" 1}', "1"),
        ("", ""),
        ('{"a": 1', ""),
    ],
)
def test_a_slip_in_the_json_is_marked(text, marked):
    with pytest.raises(json.JSONDecodeError) as error:
        json.loads(text)
    place = malformed(text, error.value)
    assert text[place.start : place.end] == marked


@given(st.text(alphabet='{}[]",:\\ab$. 1\n\x00\ud800', max_size=60), st.text(alphabet="ab$.[]01", max_size=10))
def test_no_text_is_too_odd(text, path):
    place = locate(text, path)
    assert place is None or 0 <= place.start <= place.end <= len(text)


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(min_size=1, max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), JSON, min_size=1), st.sampled_from([None, 2]))
def test_every_key_of_a_question_is_found(question, indent):
    text = json.dumps(question, indent=indent)
    for key in question:
        place = locate(text, key)
        assert text[place.start :].startswith(json.dumps(key))
