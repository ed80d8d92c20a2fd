"""The packed form of candidates, and tables: whatever goes in comes out, types and all."""

from __future__ import annotations

import json
import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray.capture.call import with_output
from xray.exceptions import StoreError
from xray.stage_types.base import Columns
from xray_server.candidate_rows import from_columns
from xray_server.json_rules import INT64_MAX, INT64_MIN, clean, is_clean, is_clean_list
from xray_server.packing import FORM, pack, read_texts, unpack, write_texts
from xray_server.pages import PAGE_SIZE, CandidatePage, join_columns, merge_pages, paginate
from xray_server.tables import Table, as_table

TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
    st.sampled_from(["", "a", "ab", "sku-001", "sku-002", "\x7f", "a\x7fb", '"', "\\", "\u2028", "passed"]),
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(INT64_MIN, INT64_MAX), st.floats(allow_nan=False, allow_infinity=False),
    TEXTS, st.sampled_from([0, 0.0, -0.0, 1, 1.0, True, 1e300, 5e-324, 2**53 + 1]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)


@st.composite
def columns(draw):
    """Columns that are alike from candidate to candidate as often as not, which is what the form makes use of."""
    count = draw(st.integers(1, 12))
    ids = draw(st.lists(TEXTS, min_size=count, max_size=count))
    kinds = st.sampled_from([SCALARS, TEXTS, st.sampled_from(["passed", "failed", None]), VALUES, st.just(None)])
    values = {}
    for name in draw(st.lists(st.sampled_from(["verdict", "data", "score", "own"]), unique=True)):
        if draw(st.booleans()):
            fields = draw(st.lists(TEXTS, unique=True, max_size=4))
            by_field = {field: draw(st.lists(draw(kinds), min_size=count, max_size=count)) for field in fields}
            values[name] = [{field: by_field[field][place] for field in fields} for place in range(count)]
        else:
            values[name] = draw(st.lists(draw(kinds), min_size=count, max_size=count))
    if draw(st.booleans()):
        values["same_as_ids"] = list(ids)
    return Columns(ids, values)


def exact(value):
    """A text that tells 1 from 1.0 and True, 0.0 from -0.0, and the order of keys."""
    return repr(value)


@settings(max_examples=400, deadline=None)
@given(columns())
def test_what_is_packed_is_unpacked(given_columns):
    """Every column that has a value comes back as it was, by type, sign of zero and order of keys."""
    packed = pack(given_columns.candidate_id, given_columns.values)
    used = {n: values for n, values in given_columns.values.items() if any(value is not None for value in values)}
    assert exact(unpack(packed, given_columns.candidate_id)) == exact(used)
    json.loads(packed)  # is JSON to others too


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=10))
def test_texts_come_back(texts):
    """Whatever texts have in common, they come back; also where they hold the separator."""
    spec = msgspec.json.decode(msgspec.json.encode(write_texts(texts)))
    assert read_texts(spec, len(texts)) == texts


@settings(max_examples=300, deadline=None)
@given(columns(), st.data())
def test_pages_are_cut_merged_and_joined_alike(given_columns, data):
    """However candidates are cut into pages, and whichever version of a page comes first, they stay what they are."""
    count = len(given_columns)
    first = data.draw(st.integers(PAGE_SIZE - count, PAGE_SIZE - 1))
    pages = paginate("r", "s", 1, given_columns, first)
    assert exact(sorted_rows(join_columns(pages))) == exact(sorted_rows(given_columns))
    cut = data.draw(st.integers(0, count - 1))
    low, high = pages[0], paginate("r", "s", 1, given_columns.slice(cut, count), first + cut)[0]
    if low.page == high.page:
        for merged in (merge_pages(low, high), merge_pages(high, low)):
            assert merged.seqs == low.seqs
            assert exact(sorted_rows(merged.columns())) == exact(sorted_rows(low.columns()))


def sorted_rows(given_columns):
    return [dict(sorted(row.items())) for row in given_columns.rows()]


@settings(max_examples=300, deadline=None)
@given(columns(), st.data())
def test_what_a_stage_returned_becomes_the_same_output(given_columns, data):
    """The shorter ways of finding what a stage changed find what the plain comparison finds."""
    before = given_columns.values.get("data", [None] * len(given_columns))
    after = []
    for value in before:
        changed = dict(value) if isinstance(value, dict) else value
        if isinstance(changed, dict) and data.draw(st.booleans()):
            changed |= data.draw(st.dictionaries(TEXTS, SCALARS, max_size=2))
        after.append(changed)
    sent = {"candidate_id": given_columns.candidate_id, "data": before, "returned": after}
    expected = with_output(Columns(given_columns.candidate_id, {"data": before, "returned": after}))
    found = from_columns(sent, "columns", None)
    assert exact(list(found.rows())) == exact(list(expected.rows()))


UNCLEAN = st.one_of(
    SCALARS, st.sampled_from([math.nan, math.inf, 2**63, -(2**70), "\0", "a\0", "\ud800", b"x"]),
    st.lists(st.sampled_from([1, "a", math.nan, "\0"]), max_size=2),
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(UNCLEAN, st.fixed_dictionaries({"a": UNCLEAN, "b": UNCLEAN})), max_size=6))
def test_looking_at_a_list_as_a_whole_finds_what_looking_at_each_finds(values):
    """A list is clean where each of its values is, also where all are objects of one form."""
    for some in (values, [{"x": value, "y": [value]} for value in values]):
        assert is_clean_list(some) == all(is_clean(value) for value in some)
        assert is_clean_list(clean(some))


def test_a_newer_form_is_refused():
    """A pack of a form that this version does not know, or no pack at all, is said to be one."""
    packed = pack(["a"], {"score": [1.5]})
    with pytest.raises(StoreError) as caught:
        unpack(packed.replace(b"[1,", b"[%d," % (FORM + 1), 1), ["a"])
    assert caught.value.code == "newer_store"
    for broken in (b"", b"\x81\xa1a\x01", b"[]", b"{}", b"[1,2]"):
        with pytest.raises(StoreError):
            unpack(broken, ["a"])


def test_a_table_is_a_list_of_dicts():
    """Places, slices, length and order are those of the list that it stands for."""
    rows = [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}, {"a": None, "b": "z"}]
    table = as_table(rows)
    assert isinstance(table, Table)
    assert (list(table), len(table), table[1], table[-1], list(table[1:])) == (rows, 3, rows[1], rows[2], rows[1:])
    with pytest.raises(IndexError):
        table[3]
    assert list(as_table([{}, {}])) == [{}, {}]
    for other in ([], [1], [{"a": 1}, {"b": 1}], [{"a": 1, "b": 2}, {"b": 2, "a": 1}], [{"a": 1}, None]):
        assert as_table(other) is None


def test_a_page_has_its_columns_packed_or_as_a_block():
    """The block of a page gives the same page; the range of the scores is there without being asked for."""
    columns = Columns(["a", "b", "c"], {"score": [2, None, -0.5], "verdict": ["failed", None, "passed"]})
    (page,) = paginate("r", "s", 1, columns)
    again = CandidatePage("r", "s", 0, 1, page.seqs, page.ids, page.reason_labels, page.block)
    assert again == page
    assert again.ranges == page.ranges == {"score": (-0.5, 2)}
    assert again.columns() == columns
    with pytest.raises(ValueError, match="block"):
        CandidatePage("r", "s", 0, 1, (0,), ("a",), ())


def test_a_value_of_another_type_is_a_change():
    """What was 1 and went out as True or 1.0 was changed, although Python calls them equal."""
    sent = {
        "candidate_id": ["x", "y"],
        "data": [{"a": 1, "b": 0}, {"a": 2, "b": 0}],
        "returned": [{"a": True, "b": 0}, {"a": 2.0, "b": 0}],
    }
    assert exact(list(from_columns(sent, "columns", None).column("output"))) == exact([{"a": True}, {"a": 2.0}])
