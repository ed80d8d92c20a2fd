"""Random filters over random documents: the evaluator and the judge say the same."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.judge import judge
from xray_server.query.evaluate import compile_condition
from xray_server.query.fields import MetricCatalog
from xray_server.query.parser import parse_condition

CATALOG = MetricCatalog()
NAMES = ("a", "b", "0", "1")

numbers = st.sampled_from(
    [0, 1, 2, -1, 1.0, 0.5, -0.0, 2**53, 2**53 + 1, float(2**53), 2**63 - 1, -(2**63), float(2**63), 1e300]
)
strings = st.sampled_from(["", "a", "A", "1", "é", "e\u0301", "\uffff", "\U0001f600"])
scalars = st.one_of(st.none(), st.booleans(), numbers, strings)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)),
    max_leaves=8,
)
documents = st.dictionaries(st.sampled_from(NAMES), values, max_size=4).map(lambda metadata: {"metadata": metadata})
paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map(lambda names: ".".join(["metadata", *names]))

comparisons = st.tuples(st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]), values)
memberships = st.tuples(st.sampled_from(["$in", "$nin"]), st.lists(values, max_size=4))
existence = st.tuples(st.just("$exists"), st.booleans())


def objects_of(pairs: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.lists(pairs, min_size=1, max_size=3).map(dict)


operators = st.recursive(
    objects_of(st.one_of(comparisons, memberships, existence)),
    lambda inner: objects_of(st.one_of(comparisons, st.tuples(st.just("$not"), inner))),
    max_leaves=3,
)
members = st.tuples(paths, st.one_of(values, operators, operators))
filters = st.recursive(
    objects_of(members),
    lambda inner: objects_of(
        st.one_of(members, st.tuples(st.sampled_from(["$and", "$or", "$nor"]), st.lists(inner, min_size=1, max_size=3)))
    ),
    max_leaves=4,
)


@settings(max_examples=2000, deadline=None)
@given(filter_=filters, some=st.lists(documents, min_size=1, max_size=5))
def test_evaluator_and_judge_agree(filter_: dict[str, Any], some: list[dict[str, Any]]) -> None:
    holds = compile_condition(parse_condition("pipeline", filter_, CATALOG))
    for document in some:
        assert holds(document) is judge(filter_, document), document


@settings(max_examples=1500, deadline=None)
@given(document=documents, data=st.data())
def test_they_agree_where_the_filter_is_made_of_the_document(document: dict[str, Any], data: st.DataObject) -> None:
    # Paths that lead somewhere and values that are there make matches far more frequent.
    path, value = data.draw(st.sampled_from(list(walk(document, ()))))
    operator = data.draw(st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]))
    if not path:
        return
    skipped = data.draw(st.sets(st.sampled_from(range(1, max(2, len(path)))), max_size=2))
    path = tuple(segment for i, segment in enumerate(path) if i == 0 or i not in skipped)
    beyond = data.draw(st.lists(st.sampled_from(NAMES), max_size=2))
    filter_ = {".".join([*path, *beyond]): {operator: data.draw(st.sampled_from([value, None]))}}
    holds = compile_condition(parse_condition("pipeline", filter_, CATALOG))
    assert holds(document) is judge(filter_, document)


def walk(value: Any, path: tuple[str, ...]) -> Any:
    yield path, value
    if isinstance(value, dict):
        for key, item in value.items():
            yield from walk(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from walk(item, (*path, str(index)))
