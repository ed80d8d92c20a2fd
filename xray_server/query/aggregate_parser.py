"""From the JSON object of an aggregation to its parsed form."""

from __future__ import annotations

from typing import Any

from xray.exceptions import QueryError
from xray_server.query import ast
from xray_server.query.aggregate import every_stage
from xray_server.query.buckets import parse_bucket
from xray_server.query.fields import MetricCatalog, resolve
from xray_server.query.figures import QUANTILES, WEIGHTED, Aggregation, Value
from xray_server.query.operators import hint_for, show
from xray_server.query.parser import known_keys, parse_conditions, parse_flag
from xray_server.query.values import check_text

OPERATORS = ("$count", "$sum", "$avg", "$min", "$max", *QUANTILES, *WEIGHTED)
MAX_GROUP_FIELDS = 5
MAX_AGGREGATE_VALUES = 50
MAX_ROWS = 10_000
_DEFAULT_LIMIT = 1000

_OTHER_NAMES = {
    "$median": "The median is '$p50'.",
    "$mean": "The mean is '$avg'.",
    "$average": "The mean is '$avg'.",
    "$p95": "There are $p50, $p90 and $p99.",
}

KEYS = ("pipeline", "stage", "stages", "candidate", "group_by", "bucket", "values", "sort", "limit", "explain")


def parse_aggregation(asked: Any, catalog: MetricCatalog) -> Aggregation:
    """Parse and validate an aggregation.

    Args:
        asked: The JSON object, decoded.
        catalog: The metrics that it may name.

    Raises:
        QueryError: It is not of the query language; ``path`` says where, ``hint`` what would be right.
    """
    given = known_keys(asked, KEYS)
    group_by = _group_by(given.get("group_by", ()), catalog)
    bucket = parse_bucket(given["bucket"]) if "bucket" in given else None
    values = _values(given.get("values", {"count": {"$count": {}}}), catalog)
    names = [*(["bucket"] if bucket else []), *(name for name, _ in group_by), *(value.name for value in values)]
    for name in names:
        if names.count(name) > 1:
            raise QueryError(f"Two columns have the name '{show(name)}'.", path=f"values.{show(name)}")
    return Aggregation(
        conditions=every_stage(parse_conditions(given, catalog)),
        group_by=group_by,
        bucket=bucket,
        values=values,
        sort=_sort(given.get("sort", {}), names),
        limit=_limit(given.get("limit", _DEFAULT_LIMIT)),
        explain=parse_flag(given.get("explain", False), "explain"),
    )


def _group_by(given: Any, catalog: MetricCatalog) -> tuple[tuple[str, ast.Field], ...]:
    fields = [given] if isinstance(given, str) else given
    if not isinstance(fields, list | tuple):
        raise QueryError("'group_by' is a list of fields.", path="group_by", hint='Write ["pipeline.label", "name"].')
    if len(fields) > MAX_GROUP_FIELDS:
        raise QueryError(f"'group_by' has at most {MAX_GROUP_FIELDS} fields.", code="too_large", path="group_by")
    found: dict[str, ast.Field] = {}
    for place, name in enumerate(fields):
        path = f"group_by[{place}]"
        if not isinstance(name, str):
            raise QueryError("A field to group by is a path, as a string.", path=path)
        named = resolve("stage", check_text(name, path), path, catalog)
        if isinstance(named.reference, ast.Metric) or named.kind in ("number", "time"):
            raise QueryError(
                f"'{show(name)}' has too many values to group by.",
                path=path,
                hint="Group by a field that names things, such as pipeline.label; by time with 'bucket'.",
            )
        found[name] = named.reference
    return tuple(found.items())


def _values(given: Any, catalog: MetricCatalog) -> tuple[Value, ...]:
    if not isinstance(given, dict) or not given:
        raise QueryError(
            "'values' is an object of figures.",
            path="values",
            hint='Write {"stages": {"$count": {}}, "median": {"$p50": "$failRatio"}}.',
        )
    if len(given) > MAX_AGGREGATE_VALUES:
        raise QueryError(f"'values' has at most {MAX_AGGREGATE_VALUES} figures.", code="too_large", path="values")
    return tuple(_value(name, item, catalog) for name, item in given.items())


def _value(name: Any, given: Any, catalog: MetricCatalog) -> Value:
    path = f"values.{show(name)}"
    if not isinstance(name, str):
        raise QueryError("The names of figures are strings.", path=path)
    check_text(name, path)
    if not isinstance(given, dict) or len(given) != 1:
        raise QueryError("A figure has one operator.", path=path, hint='Write {"$avg": "$failRatio"}.')
    ((operator, operand),) = given.items()
    inner = f"{path}.{show(operator)}"
    if operator not in OPERATORS:
        hint = None
        if isinstance(operator, str):
            hint = _OTHER_NAMES.get(operator) or hint_for(operator, *OPERATORS)
        raise QueryError(
            f"There is no figure '{show(operator)}'.",
            code="unknown_operator",
            path=inner,
            hint=hint or f"There are {', '.join(OPERATORS)}.",
        )
    if operator in ("$count", "$weightedCount"):
        if operand not in ({}, None) and operand is not True:
            raise QueryError(f"'{operator}' counts stages.", path=inner, hint=f'Write {{"{operator}": {{}}}}.')
        return Value(name, operator)
    if not isinstance(operand, str):
        raise QueryError(f"'{operator}' takes a metric.", path=inner, hint=f'Write {{"{operator}": "$failRatio"}}.')
    named = resolve("stage", check_text(operand, inner), inner, catalog)
    if named.kind not in ("number", "count"):
        raise QueryError(f"'{show(operand)}' is no number.", code="wrong_type", path=inner)
    return Value(name, operator, named.reference)


def _sort(given: Any, names: list[str]) -> tuple[tuple[str, bool], ...]:
    if not isinstance(given, dict):
        raise QueryError("'sort' is an object.", path="sort", hint='Write {"count": -1}.')
    for name, direction in given.items():
        path = f"sort.{show(name)}"
        if name not in names:
            hint = hint_for(name, *names) if isinstance(name, str) else None
            raise QueryError(
                f"There is no column '{show(name)}'.",
                path=path,
                hint=hint or f"There are {', '.join(map(show, names))}.",
            )
        if isinstance(direction, bool) or direction not in (1, -1) or not isinstance(direction, int):
            raise QueryError("A sort direction is 1 (ascending) or -1 (descending).", path=path)
    return tuple((name, direction == -1) for name, direction in given.items())


def _limit(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_ROWS:
        return value
    raise QueryError(f"'limit' is an integer from 1 to {MAX_ROWS}.", path="limit")
