"""Candidates by field: the compiled pass takes what it can exactly, and leaves everything else alone."""

from __future__ import annotations

import gc
import math
import shutil
import sys
import sysconfig
import threading
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xray
from tests.sdk.recording import columns_of, recording
from xray.capture import fields
from xray.capture.fields import FieldColumns, rows_of
from xray.capture.redact import Redactor
from xray.capture.snapshot import to_json
from xray.stage_types.base import Columns

take = fields.take_compiled
if take is None:
    pytest.skip("xray._fields is not built: there was no compiler", allow_module_level=True)

plain_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.recursive(
    plain_values,
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(texts, inner, max_size=20),
    max_leaves=20,
)


def decoded(columns: list[bytes]) -> list[list[Any]]:
    return [msgspec.msgpack.decode(column) for column in columns]


def alike(a: Any, b: Any) -> bool:
    if isinstance(a, list):
        return type(b) in (list, tuple) and len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(map(alike, a.values(), b.values()))
    return type(a) is type(b) and (a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b)))


@settings(max_examples=60, deadline=None)
@given(st.data(), st.lists(st.text(max_size=10), unique=True, max_size=6), st.integers(0, 40), st.booleans())
def test_what_is_taken_is_what_is_there(data: st.DataObject, names: list[str], count: int, as_tuple: bool) -> None:
    """Every value of every field comes back with its type, whatever order each dict has its fields in."""
    records = [
        {name: data.draw(values) for name in (data.draw(st.permutations(names)) if row % 3 == 0 else names)}
        for row in range(count)
    ]
    columns = take(tuple(records) if as_tuple else records, tuple(names), True)
    assert columns is not None
    for name, column in zip(names, decoded(columns), strict=True):
        assert len(column) == count
        assert all(alike(found, record[name]) for found, record in zip(column, records, strict=True))


@pytest.mark.parametrize(
    "value", [0, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**63 - 1, -1, -32, -33, -(2**63), True, False]
)
def test_the_ends_of_the_ranges_of_integers(value: int) -> None:
    """Integers at the bounds of each width are themselves."""
    (column,) = decoded(take([{"n": value}], ("n",), True))
    assert alike(column[0], value)


@pytest.mark.parametrize("size", [0, 31, 32, 255, 256, 65535, 65536, 200_000])
@pytest.mark.parametrize("letter", ["a", "é", "漢", "🙂"])
def test_texts_of_any_length_and_width(size: int, letter: str) -> None:
    """Texts are themselves, at the bounds of each length and in each width of characters."""
    text = letter * size
    assert decoded(take([{"t": text}], ("t",), True)) == [[text]]


def deep(levels: int) -> Any:
    return [deep(levels - 1)] if levels else 1


def test_lists_and_dicts_within_candidates() -> None:
    """Tags, embeddings and objects within candidates are taken, as deep as is usual."""
    record = {"tags": ["a", "b"], "at": (1.5, 2.5), "seller": {"id": 7, "names": [{"de": "x"}]}, "deep": deep(8)}
    columns = decoded(take([record] * 3, tuple(record), True))
    assert [column[2] for column in columns] == [["a", "b"], [1.5, 2.5], {"id": 7, "names": [{"de": "x"}]}, deep(8)]
    cycle: list[Any] = []
    cycle.append(cycle)
    assert take([{"a": cycle}], ("a",), True) is None


class Dict(dict[str, Any]):
    pass


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "value",
    [2**63, -(2**63) - 1, "\ud800", b"x", 1j, object(), Text("x"), [b"x"], {"a": {1}}, {1: 2}, Dict(a=1), deep(9)],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_not_plain_is_left_alone(value: Any) -> None:
    """One value that is not plain, and the whole list is left to the general way."""
    assert take([{"v": 1}, {"v": value}], ("v",), True) is None


@pytest.mark.parametrize(
    "records",
    [
        [{"a": 1}, {"a": 1, "b": 2}],
        [{"a": 1, "b": 2}, {"a": 1}],
        [{"a": 1}, {"b": 1}],
        [{"a": 1}, None],
        [{"a": 1}, Dict(a=1)],
        [{"a": 1}, {1: 1}],
        {"a": 1},
        "text",
        pytest.param(iter([{"a": 1}]), id="iterator"),
    ],
    ids=repr,
)
def test_lists_that_are_not_of_like_dicts_are_left_alone(records: Any) -> None:
    """Every record has to be a dict with exactly the fields of the first."""
    assert take(records, tuple(records[0]) if isinstance(records, list) else ("a",), True) is None


def test_only_some_fields_can_be_taken() -> None:
    """Without ``all_fields`` the dicts may have others, and those may hold anything."""
    records = [{"a": 1, "x": object()}, {"y": [], "a": 2}]
    assert decoded(take(records, ("a",), False)) == [[1, 2]]
    assert take(records, ("a",), True) is None


class Meddling:
    """A key that changes the list that it is in when it is compared with a name of the same hash."""

    def __init__(self, name: str, records: list[Any]) -> None:
        self._hash = hash(name)
        self._records = records

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        self._records.clear()
        gc.collect()
        return False


def test_a_list_that_changes_meanwhile_is_left_alone() -> None:
    """Code of the user that a lookup runs may empty the list: nothing is read where nothing is any more."""
    records: list[Any] = []
    records += [{"b": 1, "a": 2}, {Meddling("a", records): 1, "b": 3}, *({"a": 1, "b": 2} for _ in range(1000))]
    assert take(records, ("a", "b"), True) is None
    assert records == []


def test_it_holds_on_to_nothing() -> None:
    """Taking, and not taking, leaves the counts of references as they were."""
    name, value, other = "a field of its own", "x" * 100, object()
    good, bad = [{name: value}] * 50, [{name: value}, {name: other}]
    names = (name,)
    for records in (good, bad):
        take(records, names, True)
    before = [sys.getrefcount(each) for each in (name, value, other, names, good[0], bad[1])]
    for _ in range(100):
        for records in (good, bad):
            take(records, names, True)
    assert [sys.getrefcount(each) for each in (name, value, other, names, good[0], bad[1])] == before


def test_wrong_arguments_are_errors() -> None:
    """It is called by this package alone, and still does not crash on nonsense."""
    with pytest.raises(TypeError):
        take([], ())  # type: ignore[call-arg]
    assert take([], (1,), True) is None  # type: ignore[arg-type]
    assert take([], ["a"], True) is None  # type: ignore[arg-type]
    assert take([{}], (), True) == []


def test_threads_that_change_what_is_taken() -> None:
    """While another thread changes the dicts, each list that is taken is whole."""
    records = [{"n": 0, "m": 0} for _ in range(2000)]
    stop = threading.Event()

    def change() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            for record in records:
                record["n"] = number

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(200):
            assert list(map(len, decoded(take(records, ("n", "m"), True)))) == [2000, 2000]
    finally:
        stop.set()
        thread.join()


def test_by_field_and_one_by_one_is_the_same_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter over many dicts is recorded alike in both ways: survivors, flags, changes, odd floats."""
    pool = [{"id": f"c{n}", "price": [n / 4, math.nan, math.inf][n % 3], "name": "a\0b"} for n in range(600)]

    def survivors(candidates: list[Any]) -> list[Any]:
        return [c for c in candidates if c["id"] < "c3"]

    def changed(candidates: list[Any]) -> list[Any]:
        return [{**c, "price": 1} if n % 2 else c for n, c in enumerate(candidates) if n % 5]

    def flags(candidates: list[Any]) -> list[Any]:
        return [{**c, "passed": n % 2 == 0, "name": "b" if n == 7 else c["name"]} for n, c in enumerate(candidates)]

    def backwards(candidates: list[Any]) -> list[Any]:
        return [*candidates[::-1], {"id": "new", "price": 1.0, "name": ""}]

    found: list[list[Any]] = []
    for compiled in (take, None):
        monkeypatch.setattr(fields, "take_compiled", compiled)
        with recording() as recorded:
            for function in (survivors, changed, flags, backwards):
                xray.filtering_stage(function.__name__)(function)(pool)
        found.append([list(columns_of(stage).rows()) for stage in recorded.stages])
    for by_field, one_by_one in zip(*found, strict=True):
        assert len(by_field) == len(one_by_one)
        for a, b in zip(by_field, one_by_one, strict=True):
            assert {name: value for name, value in a.items() if name != "data"} == {
                name: value for name, value in b.items() if name != "data"
            }
            assert to_json(a["data"]) == to_json(b["data"])


def test_columns_are_a_sequence_of_candidates() -> None:
    """Whoever looks at candidates one by one finds plain JSON."""
    records = [{"a": n, "b": str(n), "c": n / 2} for n in range(20)]
    columns = FieldColumns(("a", "b", "c"), take(records, ("a", "b", "c"), True), 20)
    assert len(columns) == 20
    assert (list(columns), columns[3], columns[2:4]) == (records, records[3], records[2:4])
    assert columns.column("missing") is None
    assert rows_of({}, 2) == [{}, {}]


def test_it_is_built_where_there_is_a_compiler() -> None:
    """A machine with a compiler has it: its absence would only show as slowness."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    assert shutil.which(compiler) is None or fields.take_compiled is not None


RULES = ("price", "user.email", "re:a", "re:^b+$", "3", ["name", "re:[xy]"], lambda path, value: f"{path}={value}")


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(["price", "user", "name", "a key", "3", "b"]), unique=True, min_size=1),
    st.sampled_from(RULES),
    st.data(),
)
def test_redaction_by_field_is_redaction_one_by_one(names: list[str], rule: Any, data: st.DataObject) -> None:
    """Names, patterns and callables do the same to candidates that are kept by field."""
    inner = st.sampled_from([None, 1, 2.5, True, "abba", "b", "", ["a", {"email": "x"}], {"email": "a", "b": "y"}])
    records = [{name: data.draw(inner) for name in names} for _ in range(4)]
    columns = FieldColumns(names, take(records, tuple(names), True), 4)
    ids = ["1", "2", "3", "4"]
    by_field, one_by_one = (
        Redactor(rule).apply_columns(Columns(ids, {"data": values})).values["data"] for values in (columns, records)
    )
    assert list(by_field) == one_by_one
