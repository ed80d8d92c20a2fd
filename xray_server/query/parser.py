"""From the JSON object of a question to its parsed form; whatever is wrong with it is a ``QueryError``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from xray.exceptions import QueryError
from xray_server.query import ast
from xray_server.query.cursor import decode_cursor
from xray_server.query.fields import MetricCatalog, Named, Part, resolve
from xray_server.query.operators import (
    COMPARISONS,
    FIELD_OPERATORS,
    LOGICAL_OPERATORS,
    foreign_operator,
    hint_for,
    show,
    unknown_operator,
)
from xray_server.query.sorting import parse_sort
from xray_server.query.values import MAX_LIST, Allowance, check_depth, check_text, check_value

DEFAULT_LIMIT = 50
MAX_LIMIT = 1000

_KEYS = ("pipeline", "stage", "candidate", "return", "sort", "limit", "cursor")
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
    if not isinstance(question, dict):
        raise QueryError(
            "A question is a JSON object.", hint='Write {"pipeline": {…}, "stage": {…}, "candidate": {…}}.'
        )
    for key in question:
        if key not in _KEYS:
            hint = hint_for(key, *_KEYS) if isinstance(key, str) else None
            raise QueryError(
                f"A question has no '{show(key)}'.",
                code="unknown_key",
                path=show(key),
                hint=hint or f"It has {', '.join(_KEYS)}.",
            )
    given = {key: value for key, value in question.items() if value is not None}
    allowance = Allowance()

    def condition(part: Part) -> ast.Condition:
        return _Filter(part, catalog, allowance).parse(given[part], part, 0) if part in given else ast.EVERYTHING

    returns = _returns(given.get("return", "stages"))
    parsed = ast.Question(
        pipeline=condition("pipeline"),
        stage=condition("stage"),
        candidate=condition("candidate") if "candidate" in given else None,
        returns=returns,
        sort=parse_sort(given.get("sort", {}), returns, catalog),
        limit=_limit(given.get("limit", DEFAULT_LIMIT)),
    )
    if "cursor" in given:
        parsed = replace(parsed, after=decode_cursor(parsed, given["cursor"]))
    return parsed


def parse_condition(part: Part, condition: Any, catalog: MetricCatalog) -> ast.Condition:
    """Parse the filter of one part of a question by itself.

    Args:
        part: The part: which fields it may name.
        condition: The filter, a JSON object, decoded.
        catalog: The metrics that it may name.

    Raises:
        QueryError: It is not of the query language.
    """
    return _Filter(part, catalog, Allowance()).parse(condition, part, 0)


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


class _Filter:
    """Parses the filter of one part."""

    def __init__(self, part: Part, catalog: MetricCatalog, allowance: Allowance) -> None:
        self._part: Part = part
        self._catalog = catalog
        self._allowance = allowance

    def parse(self, value: Any, path: str, depth: int) -> ast.Condition:
        """A filter object: every member must hold."""
        check_depth(depth, path)
        if not isinstance(value, dict):
            raise QueryError("A condition is a JSON object.", path=path, hint='Write {"field": value}.')
        return _all_of([self._member(key, item, f"{path}.{show(key)}", depth + 1) for key, item in value.items()])

    def _member(self, key: Any, value: Any, path: str, depth: int) -> ast.Condition:
        self._allowance.condition(path)
        if not isinstance(key, str):
            raise QueryError("The keys of a condition are strings.", path=path)
        check_text(key, path)
        if key in LOGICAL_OPERATORS:
            return self._logical(key, value, path, depth)
        if key.startswith("$"):
            self._refuse_operator(key, path)
        named = resolve(self._part, key, path, self._catalog)
        if isinstance(value, dict) and any(isinstance(name, str) and name.startswith("$") for name in value):
            return self._operators(named, value, path, depth)
        return self._test(named, "$eq", value, path, depth)

    def _refuse_operator(self, key: str, path: str) -> None:
        """Pass over what may be a metric; raise for any other word with a ``$``."""
        if key in FIELD_OPERATORS:
            hint = "Write $nor." if key == "$not" else f'Write {{"field": {{"{key}": …}}}}.'
            raise QueryError(f"'{key}' stands below a field.", path=path, hint=hint)
        if self._part == "stage":
            foreign = foreign_operator(key, path)
            if foreign is not None:
                raise foreign
            return
        if self._catalog.declaration(key.partition(".")[0]) is not None:
            raise QueryError(f"'{show(key)}' is a metric of stages.", path=path, hint="Put it under 'stage'.")
        raise unknown_operator(key, path, *LOGICAL_OPERATORS)

    def _logical(self, key: str, value: Any, path: str, depth: int) -> ast.Condition:
        if not isinstance(value, list | tuple) or not value:
            raise QueryError(f"'{key}' takes a list of at least one condition.", path=path)
        inner = tuple(self.parse(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(value))
        if key == "$and":
            return ast.And(inner)
        return ast.Or(inner) if key == "$or" else ast.Not(ast.Or(inner))

    def _operators(self, named: Named, value: dict[Any, Any], path: str, depth: int) -> ast.Condition:
        check_depth(depth, path)
        tests = []
        for operator, operand in value.items():
            inner = f"{path}.{show(operator)}"
            if not isinstance(operator, str) or not operator.startswith("$"):
                raise QueryError(
                    "An object has either operators or plain keys, not both.",
                    path=inner,
                    hint=f"'{show(operator)}' stands beside operators.",
                )
            self._allowance.condition(inner)
            tests.append(self._operator(named, operator, operand, inner, depth + 1))
        return _all_of(tests)

    def _operator(self, named: Named, operator: str, operand: Any, path: str, depth: int) -> ast.Condition:
        if operator in COMPARISONS:
            return self._test(named, operator, operand, path, depth)
        if operator == "$ne":
            return ast.Not(self._test(named, "$eq", operand, path, depth))
        if operator in ("$in", "$nin"):
            one_of = self._one_of(named, operator, operand, path, depth)
            return one_of if operator == "$in" else ast.Not(one_of)
        if operator == "$exists":
            if not isinstance(operand, bool):
                raise QueryError("'$exists' takes true or false.", path=path)
            return ast.Test(named.reference, ast.Exists(operand))
        if operator == "$not":
            if not isinstance(operand, dict) or not operand:
                raise QueryError(
                    "'$not' takes an object of operators.", path=path, hint='Write {"$not": {"$gt": 1}}, or $ne.'
                )
            return ast.Not(self._operators(named, operand, path, depth))
        raise unknown_operator(operator, path)

    def _test(self, named: Named, operator: str, value: Any, path: str, depth: int) -> ast.Condition:
        op = COMPARISONS[operator]
        checked = check_value(named, value, path, self._allowance, exact=op == "eq", depth=depth)
        return ast.Test(named.reference, ast.Compare(op, checked))

    def _one_of(self, named: Named, operator: str, operand: Any, path: str, depth: int) -> ast.Condition:
        if not isinstance(operand, list | tuple):
            raise QueryError(f"'{operator}' takes a list.", path=path, hint=f'Write {{"{operator}": [value, …]}}.')
        if len(operand) > MAX_LIST:
            raise QueryError(f"'{operator}' takes at most {MAX_LIST} values.", code="too_large", path=path)
        values = (
            check_value(named, item, f"{path}[{i}]", self._allowance, exact=True, depth=depth + 1)
            for i, item in enumerate(operand)
        )
        return ast.Test(named.reference, ast.In(tuple(values)))


def _all_of(conditions: list[ast.Condition]) -> ast.Condition:
    return conditions[0] if len(conditions) == 1 else ast.And(tuple(conditions))
