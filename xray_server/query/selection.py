"""Which fields of a row an answer has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xray.exceptions import QueryError
from xray_server.documents import Document
from xray_server.query import ast
from xray_server.query.fields import MetricCatalog, Part, resolve
from xray_server.query.operators import show
from xray_server.query.values import check_text

MAX_FIELDS = 50

ALWAYS: dict[ast.Returns, tuple[str, ...]] = {
    "stages": ("id",),
    "runs": ("id",),
    "candidates": ("candidate_id", "seq", "stage_id"),
}
"""What every row has, whatever is selected."""

CONTEXT = ("stage_id", "stage_name", "stage_type", "run_id", "label")
"""What a candidate's row has beside the candidate's own fields."""

_PARTS: dict[ast.Returns, Part] = {"stages": "stage", "runs": "pipeline", "candidates": "candidate"}


def parse_fields(fields: Any, returns: ast.Returns, catalog: MetricCatalog) -> tuple[ast.Reference, ...]:
    """Parse the ``fields`` of a question.

    Args:
        fields: A list of paths, or an object ``{path: true}``.
        returns: What the question returns.
        catalog: The metrics that it may name.

    Raises:
        QueryError: It is not of that form, or names what a row does not have.
    """
    if isinstance(fields, dict):
        for name, wanted in fields.items():
            if wanted is not True and not (wanted == 1 and isinstance(wanted, int)):
                raise QueryError(
                    "'fields' names what is wanted; the rest is left out.",
                    path=f"fields.{show(name)}",
                    hint='Write ["name", "metrics.fail_ratio"].',
                )
        paths = [(name, f"fields.{show(name)}") for name in fields]
    elif isinstance(fields, list | tuple):
        paths = [(name, f"fields[{i}]") for i, name in enumerate(fields)]
    else:
        raise QueryError("'fields' is a list of paths.", path="fields", hint='Write ["name", "metrics.fail_ratio"].')
    if not 1 <= len(paths) <= MAX_FIELDS:
        raise QueryError(f"'fields' has 1 to {MAX_FIELDS} paths.", code="too_large", path="fields")
    return tuple(dict.fromkeys(_reference(name, path, returns, catalog) for name, path in paths))


def _reference(name: Any, path: str, returns: ast.Returns, catalog: MetricCatalog) -> ast.Reference:
    if not isinstance(name, str):
        raise QueryError("A field is a path, as a string.", path=path)
    check_text(name, path)
    if returns == "candidates" and name in CONTEXT:
        return ast.Field((name,))
    if returns == "stages":
        if name in ("metrics", "pipeline"):
            return ast.Field((name,))
        if name.startswith(("$", "metrics.")):
            metric = catalog.declaration(name.removeprefix("metrics.").removeprefix("$").partition(".")[0])
            if metric is not None and metric.kind != "number" and "." not in name.removeprefix("metrics."):
                # A whole table may be shown, although none can be searched.
                return ast.Field(("metrics", metric.name))
    return resolve(_PARTS[returns], name, path, catalog).reference


def select(row: Mapping[str, Any], fields: Sequence[ast.Reference], returns: ast.Returns) -> Document:
    """A row with the selected fields only; where a path goes through an array, of each of its objects.

    Args:
        row: The whole row.
        fields: What is wanted.
        returns: What the question returns.
    """
    selected: Document = {name: row[name] for name in ALWAYS[returns] if name in row}
    for field in fields:
        if isinstance(field, ast.Metric):
            path: tuple[str, ...] = ("metrics", field.name) if field.key is None else ("metrics", field.name, field.key)
        else:
            path = field.path
        _take(row, path, selected)
    return selected


def _take(source: Mapping[str, Any], path: Sequence[str], into: Document) -> None:
    head, *rest = path
    if head not in source:
        return
    value = source[head]
    if not rest:
        into[head] = value
    elif isinstance(value, dict):
        inner = into.setdefault(head, {})
        if inner is not value:
            _take(value, rest, inner)
    elif isinstance(value, list):
        before = into.get(head)
        if before is value:
            return
        objects = [item for item in value if isinstance(item, dict)]
        taken = before if before is not None else [{} for _ in objects]
        for item, inner in zip(objects, taken, strict=True):
            _take(item, rest, inner)
        into[head] = taken
