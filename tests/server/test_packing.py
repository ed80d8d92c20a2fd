"""The packed form of candidates, and tables: whatever goes in comes out, types and all."""

from __future__ import annotations

import json
import math
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray.capture.call import with_output
from xray.exceptions import StoreError
from xray.stage_types.base import Columns
from xray_server import radix
from xray_server.candidate_rows import from_columns
from xray_server.json_rules import INT64_MAX, INT64_MIN, clean, is_clean, is_clean_list
from xray_server.packing import FORM, pack, read_texts, size_of_texts, split, unpack, write_texts
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


@st.composite
def long_columns(draw):
    """Columns as pipelines have them, up to a page long."""
    count = draw(st.integers(1, 256))
    drawn = draw(st.randoms(use_true_random=False))
    words = draw(st.lists(TEXTS, unique=True, min_size=1, max_size=50))
    skewed = draw(st.sampled_from([0.0, 0.05, 0.5, 1.0]))
    labels = [drawn.choice(words) if drawn.random() < skewed else None for _ in range(count)]
    places, decimals = draw(st.sampled_from([1, 100, 10**9, 10**17])), draw(st.integers(0, 9))
    flags = {label: drawn.random() < 0.5 for label in dict.fromkeys(labels)}
    low = draw(st.sampled_from([0, -7, 10**6, INT64_MIN, INT64_MAX - 10**17]))
    values = {
        "verdict": [("passed" if flags[label] else "failed") for label in labels],
        "reason_label": labels,
        "flag": [flags[label] for label in labels],
        "count": [low + drawn.randrange(places) for _ in labels],
        "few": [drawn.choice([0, 3, 10**12]) for _ in labels],
        "price": [round(drawn.uniform(-places, places), decimals) for _ in labels],
        "zeros": [drawn.choice([0.0, -0.0, 1.5]) for _ in labels],
        "code": [f"c{drawn.randrange(places):03d}" for _ in labels],
        "number": [str(drawn.randrange(places)) for _ in labels],
    }
    values |= {f"{name} again": list(values[name]) for name in ("count", "price", "code", "number")}
    # Not the same, although Python calls them equal.
    values["count as float"] = [float(number) for number in values["count"]]
    kept = draw(st.sets(st.sampled_from(sorted(values)), min_size=1))
    ids = [f"{drawn.choice(['', 'x'])}{drawn.randrange(10**6)}" for _ in labels]
    values |= {"title": [f"Thing {one}!" for one in ids], "nearly": [f"Thing {one}" for one in ids[:-1]] + ["Thing"]}
    used = {name: column for name, column in values.items() if name in kept and column != [None] * count}
    return ids, used or {"verdict": ["passed"] * count}


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
    json.loads(packed.partition(b"\n")[0])  # is JSON to others too


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=10))
def test_texts_come_back(texts):
    """Whatever texts have in common, they come back; also where they hold the separator."""
    digits = []
    spec = msgspec.json.decode(msgspec.json.encode(write_texts(texts, digits)))
    kept = b"".join(digits)
    assert read_texts(spec, len(texts), kept + b"what comes next") == texts
    assert size_of_texts(spec, len(texts)) == len(kept)


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
        unpack(packed.replace(b"[%d," % FORM, b"[%d," % (FORM + 1), 1), ["a"])
    assert caught.value.code == "newer_store"
    for broken in (b"", b"\x81\xa1a\x01", b"[]", b"{}", b"[1,2]"):
        with pytest.raises(StoreError):
            unpack(broken, ["a"])


def test_a_pack_without_all_of_its_digits_is_refused():
    """Digits that are cut off, or that nothing asks for, are damage, not other values."""
    ids = [f"item {number}" for number in range(40)]
    packed = pack(ids, {"score": [number * 0.25 for number in range(40)], "verdict": ["passed", "failed"] * 20})
    assert len(split(packed)[1]) > 20
    for broken in (packed[:-1], packed + b"\0"):
        with pytest.raises(StoreError, match="cannot be read"):
            unpack(broken, ids)


def test_a_pack_of_the_first_form_is_read():
    """Packs that earlier versions wrote say what they said."""
    packed = (
        b'[1,4,{"verdict":{"of":["passed","failed"],"at":"#$$#"},"reason_label":{"of":[null,"dear","poor"],"at":"#$%#"},'
        b'"data":{"keys":["sku","price","made"],'
        b'"by":[{"ids":true},[1.5,2.25,3.0,4],{"pre":"in ","text":"a\x7fbc\x7f\x7fd"}]},'
        b'"own":{"pre":"n-","width":2,"text":"01020304"},"flag":{"same":true}}]'
    )
    assert exact(unpack(packed, ["a", "b", "c", "d"])) == exact(
        {
            "verdict": ["passed", "failed", "failed", "passed"],
            "reason_label": [None, "dear", "poor", None],
            "data": [
                {"sku": "a", "price": 1.5, "made": "in a"},
                {"sku": "b", "price": 2.25, "made": "in bc"},
                {"sku": "c", "price": 3.0, "made": "in "},
                {"sku": "d", "price": 4, "made": "in d"},
            ],
            "own": ["n-01", "n-02", "n-03", "n-04"],
            "flag": [True] * 4,
        }
    )


@settings(max_examples=300, deadline=None)
@given(long_columns(), st.data())
def test_long_columns_come_back_alone_and_together(given_columns, data):
    """Labels, ids, prices and counts as pipelines have them come back, also where only some columns are asked for."""
    ids, values = given_columns
    packed = pack(ids, values)
    assert exact(unpack(packed, ids)) == exact(values)
    only = data.draw(st.sets(st.sampled_from(sorted(values))))
    assert exact(unpack(packed, ids, only)) == exact({name: values[name] for name in values if name in only})


def test_what_is_there_twice_is_kept_once():
    """A column that says the ids, or what another column says, takes next to nothing."""
    draw = random.Random(4)
    ids = [f"item-{draw.randrange(10**7):07d}" for _ in range(200)]
    prices = [draw.randrange(10**6) / 100 for _ in ids]
    once = {"price": prices, "code": [f"{draw.randrange(10**9):09d}" for _ in ids]}
    twice = once | {
        "title": [f"Thing {one}" for one in ids],
        "sku": ids,
        "was": list(prices),
        "ean": list(once["code"]),
    }
    assert len(pack(ids, twice)) < len(pack(ids, once)) + 150
    assert exact(unpack(pack(ids, twice), ids, {"was", "ean", "title"})) == exact(
        {name: twice[name] for name in ("title", "was", "ean")}
    )


@given(st.integers(1, 10**6), st.data())
def test_digits_come_back(radix_of, data):
    """Numbers below a radix come back from as many bytes as were announced; the shorter way gives the same bytes."""
    numbers = data.draw(st.lists(st.integers(0, radix_of - 1), max_size=100))
    written = radix.write(numbers, radix_of)
    assert len(written) == radix.size_of(len(numbers), radix_of)
    assert radix.read(b"ab" + written + b"cd", 2, len(numbers), radix_of) == numbers
    width = len(str(radix_of - 1))
    text = "".join(f"{number:0{width}d}" for number in numbers)
    assert radix.write_text(text, 10, width) == (of_text := radix.write(numbers, 10**width))
    assert radix.read_text(b"ab" + of_text, 2, len(numbers), width) == text


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


def test_equal_columns_of_words_are_written_once():
    """Whether some candidates have no word or all have one."""
    ids = [f"c{n}" for n in range(64)]
    for words in (["too dear", None, "", "too old"] * 16, ["a", "b", "c", "d"] * 16):
        alone, twice = (pack(ids, dict.fromkeys(names, words)) for names in ("a", "ab"))
        assert split(twice)[1] == split(alone)[1]
        assert unpack(twice, ids) == {"a": words, "b": words}
