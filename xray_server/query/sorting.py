"""The order of an answer.

The id is always the last key, so that the order is total: ascending, unless all other keys descend; then it
descends too, and one index read backwards serves the whole order.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xray.exceptions import QueryError
from xray_server.documents import CANDIDATE_FIELDS
from xray_server.query import ast
from xray_server.query.fields import SORTABLE, MetricCatalog, resolve
from xray_server.query.operators import show
from xray_server.query.values import check_text

MAX_SORT_KEYS = 8

_ID = ast.Field(("id",))
DEFAULT_SORT = (ast.SortKey(ast.Field(("started_at",)), descending=True), ast.SortKey(_ID, descending=True))
"""Latest first: of stages, and of runs."""

_REMOVED_AT = ast.Field(("candidates_removed_at",))
REMOVED = ast.Test(_REMOVED_AT, ast.Compare("gt", 0))
BY_REMOVAL = (ast.SortKey(_REMOVED_AT, descending=True), ast.SortKey(_ID, descending=True))
"""Stages whose candidates were removed, those of the latest removal first; a small index of its own serves them."""


def parse_sort(sort: Any, returns: ast.Returns, catalog: MetricCatalog) -> tuple[ast.SortKey, ...]:
    """Parse the ``sort`` of a question.

    Args:
        sort: An object ``{name: 1 or -1}`` in the order of the keys, or a list of such objects with one key each.
        returns: What the question returns; candidates are sorted by their stages.
        catalog: The metrics that it may name.

    Returns:
        The keys, with the id as the last one; ``DEFAULT_SORT`` where there are none.

    Raises:
        QueryError: It is not of that form, or names what cannot be sorted by.
    """
    keys: list[ast.SortKey] = []
    for name, direction, path in _pairs(sort):
        reference = _reference(name, path, returns, catalog)
        if isinstance(direction, bool) or not isinstance(direction, int) or direction not in (1, -1):
            raise QueryError("A sort direction is 1 (ascending) or -1 (descending).", path=path)
        if any(key.reference == reference for key in keys):
            raise QueryError(f"'{show(name)}' is sorted by twice.", path=path)
        keys.append(ast.SortKey(reference, descending=direction == -1))
        if len(keys) > MAX_SORT_KEYS:
            raise QueryError(f"A question has at most {MAX_SORT_KEYS} sort keys.", code="too_large", path="sort")
    return _ending_in_id(keys) if keys else DEFAULT_SORT


def _pairs(sort: Any) -> Iterable[tuple[Any, Any, str]]:
    if isinstance(sort, dict):
        return [(name, direction, f"sort.{show(name)}") for name, direction in sort.items()]
    if not isinstance(sort, list | tuple):
        raise QueryError("'sort' is an object.", path="sort", hint='Write {"$failRatio": -1, "started_at": 1}.')
    pairs = []
    for i, item in enumerate(sort):
        if not isinstance(item, dict) or len(item) != 1:
            raise QueryError("A sort list has objects of one key each.", path=f"sort[{i}]", hint='Write {"name": 1}.')
        pairs += [(name, direction, f"sort[{i}].{show(name)}") for name, direction in item.items()]
    return pairs


def _reference(name: Any, path: str, returns: ast.Returns, catalog: MetricCatalog) -> ast.Reference:
    if not isinstance(name, str):
        raise QueryError("The keys of a sort are strings.", path=path)
    check_text(name, path)
    if returns == "runs" and name.startswith(("$", "metrics.")):
        raise QueryError("Runs have no metrics to sort by.", path=path, hint="Return stages to sort by a metric.")
    if returns == "candidates" and name in CANDIDATE_FIELDS and name != "output":
        raise QueryError(
            "Candidates come in the order of their stages.", path=path, hint="Sort by a field or metric of the stage."
        )
    named = resolve("pipeline" if returns == "runs" else "stage", name, path, catalog)
    if named.kind not in SORTABLE:
        raise QueryError(f"'{show(name)}' is no single value to sort by.", path=path)
    return named.reference


def _ending_in_id(keys: list[ast.SortKey]) -> tuple[ast.SortKey, ...]:
    for position, key in enumerate(keys):
        if key.reference == _ID:
            # Ids are unique: what is sorted by after one changes nothing.
            return tuple(keys[: position + 1])
    return (*keys, ast.SortKey(_ID, descending=all(key.descending for key in keys)))
