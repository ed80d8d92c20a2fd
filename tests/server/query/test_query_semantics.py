"""MongoDB's meaning of filters, case by case, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tests.judge import judge
from xray_server.query import ast
from xray_server.query.evaluate import matches
from xray_server.query.fields import MetricCatalog
from xray_server.query.ordering import compare_values
from xray_server.query.parser import parse_condition

CATALOG = MetricCatalog()
NOTHING = object()
BIG = 2**63 - 1

# What metadata.a holds (NOTHING: it is not there), the filter with `a` for `metadata.a`, whether it matches.
CASES: list[tuple[Any, dict[str, Any], bool]] = [
    # equality and types
    (1, {"a": 1}, True),
    (1, {"a": 1.0}, True),
    (1, {"a": True}, False),
    (True, {"a": 1}, False),
    (True, {"a": True}, True),
    (False, {"a": 0}, False),
    (0, {"a": False}, False),
    ("1", {"a": 1}, False),
    (-0.0, {"a": 0}, True),
    (2**53 + 1, {"a": float(2**53)}, False),
    (BIG, {"a": float(2**63)}, False),
    (BIG, {"a": {"$lt": float(2**63)}}, True),
    (-(2**63), {"a": -float(2**63)}, True),
    ("é", {"a": "é"}, True),
    ("é", {"a": "e\u0301"}, False),
    # null and missing
    (None, {"a": None}, True),
    (NOTHING, {"a": None}, True),
    (NOTHING, {"a": {"$ne": None}}, False),
    (0, {"a": None}, False),
    ("", {"a": None}, False),
    ([], {"a": None}, False),
    ([None], {"a": None}, True),
    ([1, None], {"a": {"$ne": None}}, False),
    (NOTHING, {"a": {"$in": [None, 1]}}, True),
    (NOTHING, {"a": {"$in": [1]}}, False),
    (NOTHING, {"a": {"$nin": [1]}}, True),
    (NOTHING, {"a": {"$nin": [None]}}, False),
    (NOTHING, {"a": {"$gte": None}}, True),
    (None, {"a": {"$lte": None}}, True),
    (None, {"a": {"$gt": None}}, False),
    (1, {"a": {"$gte": None}}, False),
    (NOTHING, {"a": {"$ne": 1}}, True),
    (NOTHING, {"a": {"$gt": 1}}, False),
    (NOTHING, {"a": {"$not": {"$gt": 1}}}, True),
    (1, {"a.b": None}, True),
    ({}, {"a.b": None}, True),
    ([{}], {"a.b": None}, True),
    ([{"b": 1}, {}], {"a.b": None}, True),
    ([{"b": 1}], {"a.b": None}, False),
    ([], {"a.b": None}, False),
    ([1, 2], {"a.b": None}, False),
    ([1, {}], {"a.b": None}, True),
    ([1], {"a.5": None}, False),
    # exists
    (None, {"a": {"$exists": True}}, True),
    (NOTHING, {"a": {"$exists": True}}, False),
    (NOTHING, {"a": {"$exists": False}}, True),
    ([], {"a": {"$exists": True}}, True),
    ([], {"a.b": {"$exists": False}}, True),
    ([{"b": 1}, {}], {"a.b": {"$exists": False}}, False),
    ([7], {"a.0": {"$exists": True}}, True),
    ([7], {"a.1": {"$exists": True}}, False),
    # ordering within one type only
    (5, {"a": {"$gt": 4}}, True),
    (5, {"a": {"$gt": "4"}}, False),
    ("5", {"a": {"$gt": 4}}, False),
    (True, {"a": {"$gt": 0}}, False),
    (True, {"a": {"$gt": False}}, True),
    ("b", {"a": {"$gt": "a", "$lt": "c"}}, True),
    ("\U0001f600", {"a": {"$gt": "\uffff"}}, True),
    ({"x": 1}, {"a": {"$lt": {"y": 0}}}, True),
    ({"x": "s"}, {"a": {"$gt": {"y": 0}}}, True),
    ({"x": 1}, {"a": {"$lt": {"x": 1, "y": 0}}}, True),
    ({"x": 1}, {"a": {"$gt": 0}}, False),
    ([3, 1], {"a": {"$gt": [2]}}, True),
    ([1, 3], {"a": {"$gt": [2]}}, False),
    # objects
    ({"x": 1, "y": 2}, {"a": {"x": 1, "y": 2}}, True),
    ({"x": 1, "y": 2}, {"a": {"y": 2, "x": 1}}, False),
    ({"x": 1, "y": 2}, {"a": {"x": 1}}, False),
    ({"x": 1}, {"a": {"x": 1.0}}, True),
    ({"x": 1}, {"a": {"x": True}}, False),
    ({}, {"a": {}}, True),
    (NOTHING, {"a": {}}, False),
    ({"b": {"c": 3}}, {"a.b.c": 3}, True),
    # arrays
    ([1, 2], {"a": 2}, True),
    ([1, 2], {"a": [1, 2]}, True),
    ([1, 2], {"a": [2, 1]}, False),
    ([[1, 2]], {"a": [1, 2]}, True),
    ([[1, 2]], {"a": 1}, False),
    ([], {"a": []}, True),
    ([[]], {"a": []}, True),
    ([1, 2], {"a": {"$ne": 1}}, False),
    ([0, 9], {"a": {"$gt": 5, "$lt": 3}}, True),
    ([0, 9], {"a": {"$not": {"$gt": 5, "$lt": 3}}}, False),
    ([1], {"a": {"$in": [[1]]}}, True),
    ([1, 2], {"a": {"$nin": [2, 3]}}, False),
    (1, {"a": {"$in": [True]}}, False),
    (True, {"a": {"$in": [1]}}, False),
    (1, {"a": {"$in": []}}, False),
    (1, {"a": {"$nin": []}}, True),
    # paths through arrays
    ([{"b": 1}, {"b": 2}], {"a.b": 2}, True),
    ([{"b": 1}, {"b": 2}], {"a.b": {"$ne": 2}}, False),
    ([{"b": [1, 2]}], {"a.b": 2}, True),
    ([{"b": [1, 2]}], {"a.b": [1, 2]}, True),
    ([[{"b": 1}]], {"a.b": 1}, False),
    ([[{"b": 1}]], {"a.0.b": 1}, True),
    ([[{"b": 1}]], {"a.0.0.b": 1}, True),
    ([5, 7], {"a.1": 7}, True),
    ([5, 7], {"a.0": 7}, False),
    ([5, 7], {"a.01": 7}, False),
    ([5], {"a.\u0660": 5}, False),
    ({"0": 7}, {"a.0": 7}, True),
    ([{"0": 7}], {"a.0": 7}, True),
    ([[1, 2]], {"a.0": [1, 2]}, True),
    ([[1, 2]], {"a.0": 1}, False),
    ([[1, 2]], {"a.0.1": 2}, True),
    ([{"b": 5}], {"a.0.b": 5}, True),
    ([{"b": 5}], {"a.0.b": None}, True),  # the element has no member named 0: that way ends in nothing
    ([{"b": 5}], {"a.1.b": 5}, False),
    ([5], {"a.0.b": None}, False),
    ([[5]], {"a.0.0.b": None}, False),
    ([[]], {"a.0.b": None}, False),
    ([[{}]], {"a.0.b": None}, True),
    # $regex: any text, anywhere in it
    ("abc", {"a": {"$regex": "b"}}, True),
    ("abc", {"a": {"$regex": "^b"}}, False),
    ("ABC", {"a": {"$regex": "^ab", "$options": "i"}}, True),
    ("x\nabc", {"a": {"$regex": "^ab", "$options": "m"}}, True),
    ("x\nabc", {"a": {"$regex": "^ab"}}, False),
    ("a\nb", {"a": {"$regex": "a.b", "$options": "s"}}, True),
    ("a\nb", {"a": {"$regex": "a.b"}}, False),
    (["x", "abc"], {"a": {"$regex": "^a"}}, True),
    ([["abc"]], {"a": {"$regex": "^a"}}, False),
    (5, {"a": {"$regex": "5"}}, False),
    (None, {"a": {"$regex": ""}}, False),
    (NOTHING, {"a": {"$regex": ""}}, False),
    (NOTHING, {"a": {"$not": {"$regex": "a"}}}, True),
    ("日本", {"a": {"$regex": "^..$"}}, True),
    # $mod: of the whole part, with the sign of the number
    (12, {"a": {"$mod": [4, 0]}}, True),
    (13.9, {"a": {"$mod": [4, 1]}}, True),
    (-5, {"a": {"$mod": [4, -1]}}, True),
    (-5, {"a": {"$mod": [4, 3]}}, False),
    (-5, {"a": {"$mod": [-4, -1]}}, True),
    (5, {"a": {"$mod": [4.9, 1]}}, True),
    (2**63 - 1, {"a": {"$mod": [10, 7]}}, True),
    (1e300, {"a": {"$mod": [1, 0]}}, False),
    (True, {"a": {"$mod": [1, 0]}}, False),
    ("4", {"a": {"$mod": [4, 0]}}, False),
    ([3, 4], {"a": {"$mod": [4, 0]}}, True),
    (NOTHING, {"a": {"$not": {"$mod": [4, 0]}}}, True),
    # $size: of the array itself, never of one inside it
    ([1, 2], {"a": {"$size": 2}}, True),
    ([1, 2], {"a": {"$size": 2.0}}, True),
    ([[1, 2]], {"a": {"$size": 2}}, False),
    ([[1, 2]], {"a": {"$size": 1}}, True),
    ([[1, 2]], {"a.0": {"$size": 2}}, True),
    ([{"b": [1]}, {"b": [1, 2]}], {"a.b": {"$size": 2}}, True),
    ([], {"a": {"$size": 0}}, True),
    (NOTHING, {"a": {"$size": 0}}, False),
    ({}, {"a": {"$size": 0}}, False),
    # $type
    (1, {"a": {"$type": "int"}}, True),
    (2**31, {"a": {"$type": "int"}}, False),
    (2**31, {"a": {"$type": "long"}}, True),
    (-(2**31), {"a": {"$type": 16}}, True),
    (1.0, {"a": {"$type": "int"}}, False),
    (1.0, {"a": {"$type": "double"}}, True),
    (1, {"a": {"$type": "number"}}, True),
    (True, {"a": {"$type": "number"}}, False),
    (True, {"a": {"$type": "bool"}}, True),
    (None, {"a": {"$type": "null"}}, True),
    (NOTHING, {"a": {"$type": "null"}}, False),
    ([], {"a": {"$type": "array"}}, True),
    ([1], {"a": {"$type": "array"}}, True),
    (["x"], {"a": {"$type": "string"}}, True),
    ({"b": 1}, {"a": {"$type": ["string", "object"]}}, True),
    # $all
    ([1, 2, 3], {"a": {"$all": [3, 1]}}, True),
    ([1, 2], {"a": {"$all": [3, 1]}}, False),
    (1, {"a": {"$all": [1]}}, True),
    ([1, 2], {"a": {"$all": [[1, 2]]}}, True),
    ([[1, 2]], {"a": {"$all": [[1, 2]]}}, True),
    ([1], {"a": {"$all": []}}, False),
    (NOTHING, {"a": {"$all": [None]}}, True),
    ([{"b": 1}, {"b": 2}], {"a.b": {"$all": [1, 2]}}, True),
    ([{"b": 1}, {"b": 5}], {"a": {"$all": [{"$elemMatch": {"b": 1}}, {"$elemMatch": {"b": {"$gt": 4}}}]}}, True),
    ([{"b": 1}], {"a": {"$all": [{"$elemMatch": {"b": 1}}, {"$elemMatch": {"b": {"$gt": 4}}}]}}, False),
    # $elemMatch: one element that satisfies all of it
    ([1, 9], {"a": {"$elemMatch": {"$gt": 5, "$lt": 8}}}, False),
    ([1, 9], {"a": {"$gt": 5, "$lt": 8}}, True),
    ([7], {"a": {"$elemMatch": {"$gt": 5, "$lt": 8}}}, True),
    (7, {"a": {"$elemMatch": {"$gt": 5}}}, False),
    ([[7]], {"a": {"$elemMatch": {"$gt": 5}}}, False),
    ([[7]], {"a": {"$elemMatch": {"$elemMatch": {"$gt": 5}}}}, True),
    ([[7]], {"a": {"$elemMatch": {"$size": 1}}}, True),
    ([7], {"a": {"$elemMatch": {"$ne": 7}}}, False),
    ([7, 8], {"a": {"$elemMatch": {"$ne": 7}}}, True),
    ([None], {"a": {"$elemMatch": {"$eq": None}}}, True),
    ([], {"a": {"$elemMatch": {"$exists": False}}}, False),
    ([3], {"a": {"$elemMatch": {"$not": {"$gt": 5}}}}, True),
    ([{"b": 1, "c": 2}, {"b": 2, "c": 1}], {"a": {"$elemMatch": {"b": 1, "c": 1}}}, False),
    ([{"b": 1, "c": 2}, {"b": 2, "c": 1}], {"a": {"$elemMatch": {"b": 2, "c": 1}}}, True),
    ([{"b": [1, 2]}], {"a": {"$elemMatch": {"b": 2}}}, True),
    ([{}], {"a": {"$elemMatch": {"b": None}}}, True),
    ([7], {"a": {"$elemMatch": {"b": None}}}, False),
    ([{}], {"a": {"$elemMatch": {}}}, True),
    ([7], {"a": {"$elemMatch": {}}}, False),
    ([{"b": 1}], {"a": {"$elemMatch": {"$or": [{"b": 1}, {"b": 2}]}}}, True),
    ([[5, 6]], {"a": {"$elemMatch": {"1": 6}}}, True),
    ([[{"b": 5}]], {"a": {"$elemMatch": {"b": 5}}}, False),
    ([{"b": 1}, {"b": 2}], {"a": {"$not": {"$elemMatch": {"b": 3}}}}, True),
    # logic
    (1, {"$and": [{"a": 1}, {"a": {"$lt": 2}}]}, True),
    (1, {"$or": [{"a": 2}, {"a": 1}]}, True),
    (1, {"$nor": [{"a": 2}, {"a": 1}]}, False),
    (1, {"$nor": [{"a": 2}]}, True),
    (1, {"a": {"$not": {"$not": {"$eq": 1}}}}, True),
    (1, {}, True),
]


def below_metadata(filter_: Any) -> Any:
    """The same filter about ``metadata.a`` instead of ``a``."""
    if isinstance(filter_, list):
        return [below_metadata(item) for item in filter_]
    return {
        key if key.startswith("$") else f"metadata.{key}": below_metadata(value) if key.startswith("$") else value
        for key, value in filter_.items()
    }


@pytest.mark.parametrize(("value", "filter_", "expected"), CASES)
def test_case(value: Any, filter_: dict[str, Any], expected: bool) -> None:
    document = {"metadata": {} if value is NOTHING else {"a": value}}
    filter_ = below_metadata(filter_)
    assert matches(parse_condition("pipeline", filter_, CATALOG), document) is expected
    assert judge(filter_, document) is expected, "the judge is wrong"


@pytest.mark.parametrize(
    ("metrics", "reference", "operator", "expected"),
    [
        ({"fail_ratio": 0.5}, ast.Metric("fail_ratio"), ast.Compare("gt", 0.4), True),
        ({"fail_ratio": 1}, ast.Metric("fail_ratio"), ast.Compare("eq", 1.0), True),
        ({}, ast.Metric("fail_ratio"), ast.Compare("eq", None), True),
        ({}, ast.Metric("fail_ratio"), ast.Compare("lt", 1), False),
        (None, ast.Metric("fail_ratio"), ast.Exists(wanted=False), True),
        ({"counts": {"a.b": 3}}, ast.Metric("counts", "a.b"), ast.Compare("eq", 3), True),
        ({"counts": {"a": {"b": 3}}}, ast.Metric("counts", "a.b"), ast.Exists(wanted=True), False),
        ({"counts": 7}, ast.Metric("counts", "a"), ast.Exists(wanted=True), False),
    ],
)
def test_metrics_are_read_by_name_and_whole_key(
    metrics: Any, reference: ast.Metric, operator: ast.Operator, expected: bool
) -> None:
    assert matches(ast.Test(reference, operator), {"metrics": metrics}) is expected
    assert matches(ast.Not(ast.Test(reference, operator)), {"metrics": metrics}) is not expected


def test_empty_and_holds_and_empty_or_does_not() -> None:
    assert matches(ast.And(()), {})
    assert not matches(ast.Or(()), {})


def test_values_are_in_the_order_of_their_types() -> None:
    ordered = [None, -1, 0.5, 2**63, "", "a", {}, {"a": None}, {"a": 1}, {"b": 1}, {"a": "x"}, [], [1], [1, 0], False]
    ordered.append(True)
    for i, left in enumerate(ordered):
        for j, right in enumerate(ordered):
            sign = compare_values(left, right)
            assert (sign > 0) - (sign < 0) == (i > j) - (i < j), (left, right)


def test_a_long_path_of_indexes_compiles_and_runs() -> None:
    condition = parse_condition("pipeline", {"metadata" + ".0" * 19: 1}, CATALOG)
    nested: Any = 1
    for level in range(19):
        nested = [nested] if level % 2 else {"0": nested}
    assert matches(condition, {"metadata": nested})
