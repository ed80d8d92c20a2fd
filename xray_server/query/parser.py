"""From the JSON object of a question to its parsed form; whatever is wrong with it is a ``QueryError``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from xray.exceptions import QueryError
from xray_server.query import ast
from xray_server.query.cursor import decode_cursor
from xray_server.query.fields import MetricCatalog, Part
from xray_server.query.filters import FilterParser
from xray_server.query.operators import hint_for, show
from xray_server.query.selection import parse_fields
from xray_server.query.sorting import parse_sort
from xray_server.query.values import Allowance

DEFAULT_LIMIT = 50
MAX_LIMIT = 1000

MAX_STAGES = 10
"""Conditions under ``stages``."""

KEYS = ("pipeline", "stage", "stages", "candidate", "return", "sort", "fields", "limit", "cursor", "explain")
_RETURNS: dict[str, ast.Returns] = {
    "stages": "stages",
    "runs": "runs",
    "pipelines": "runs",
    "candidates": "candidates",
}


def parse(question: Any, catalog: MetricCatalog) -> ast.Question:
    """Parse and validate a question.

    Args:
        question: The JSON object, decoded; a key whose value is null counts as left out.
        catalog: The metrics that it may name.

    Raises:
        QueryError: It is not of the query language; ``path`` says where, ``hint`` what would be right.
    """
    given = known_keys(question, KEYS)
    conditions = parse_conditions(given, catalog)
    returns = _returns(given.get("return", "stages"))
    parsed = ast.Question(
        pipeline=conditions.pipeline,
        stage=conditions.stage,
        candidate=conditions.candidate,
        stages=conditions.stages,
        returns=returns,
        sort=parse_sort(given.get("sort", {}), returns, catalog),
        limit=_limit(given.get("limit", DEFAULT_LIMIT)),
        fields=parse_fields(given["fields"], returns, catalog) if "fields" in given else None,
        explain=parse_flag(given.get("explain", False), "explain"),
    )
    if "cursor" in given:
        parsed = replace(parsed, after=decode_cursor(parsed, given["cursor"]))
    return parsed


def known_keys(question: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    """What a question gives; a key whose value is null counts as left out.

    Args:
        question: The JSON object, decoded.
        keys: What it may have.

    Raises:
        QueryError: It is no object, or has another key.
    """
    if not isinstance(question, dict):
        raise QueryError(
            "A question is a JSON object.", hint='Write {"pipeline": {…}, "stage": {…}, "candidate": {…}}.'
        )
    for key in question:
        if key not in keys:
            hint = hint_for(key, *keys) if isinstance(key, str) else None
            raise QueryError(
                f"A question has no '{show(key)}'.",
                code="unknown_key",
                path=show(key),
                hint=hint or f"It has {', '.join(keys)}.",
            )
    return {key: value for key, value in question.items() if value is not None}


def parse_conditions(given: dict[str, Any], catalog: MetricCatalog) -> ast.Question:
    """Parse the conditions of a question: what it asks about, not what it wants back.

    Args:
        given: The keys of the question that are given.
        catalog: The metrics that it may name.

    Raises:
        QueryError: A condition is not of the query language.
    """
    allowance = Allowance()

    def condition(part: Part) -> ast.Condition:
        return FilterParser(part, catalog, allowance).parse(given[part], part, 0) if part in given else ast.EVERYTHING

    stages = given.get("stages", ())
    if not isinstance(stages, list | tuple) or ("stages" in given and not stages):
        raise QueryError(
            "'stages' is a list of at least one condition.",
            path="stages",
            hint='Write [{"type": "filtering"}, {"type": "ranking"}]; one condition alone is \'stage\'.',
        )
    if len(stages) > MAX_STAGES:
        raise QueryError(f"'stages' has at most {MAX_STAGES} conditions.", code="too_large", path="stages")
    of_stage = FilterParser("stage", catalog, allowance)
    return ast.Question(
        pipeline=condition("pipeline"),
        stage=condition("stage"),
        stages=tuple(of_stage.parse(each, f"stages[{i}]", 0) for i, each in enumerate(stages)),
        candidate=condition("candidate") if "candidate" in given else None,
    )


def parse_condition(part: Part, condition: Any, catalog: MetricCatalog) -> ast.Condition:
    """Parse the filter of one part of a question by itself.

    Args:
        part: The part: which fields it may name.
        condition: The filter, a JSON object, decoded.
        catalog: The metrics that it may name.

    Raises:
        QueryError: It is not of the query language.
    """
    return FilterParser(part, catalog, Allowance()).parse(condition, part, 0)


def _returns(value: Any) -> ast.Returns:
    if isinstance(value, str) and value in _RETURNS:
        return _RETURNS[value]
    hint = hint_for(value, *_RETURNS) if isinstance(value, str) else None
    raise QueryError(
        f"A question cannot return '{show(value)}'.",
        path="return",
        hint=hint or "It returns stages, runs or candidates.",
    )


def _limit(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_LIMIT:
        return value
    raise QueryError(f"'limit' is an integer from 1 to {MAX_LIMIT}.", path="limit")


def parse_flag(value: Any, path: str) -> bool:
    """A key of a question that is true or false.

    Args:
        value: Anything.
        path: The key.

    Raises:
        QueryError: It is neither.
    """
    if isinstance(value, bool):
        return value
    raise QueryError(f"'{path}' is true or false.", path=path)
