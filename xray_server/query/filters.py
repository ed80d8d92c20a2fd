"""From the JSON object of a filter to a condition; whatever is wrong with it is a ``QueryError``."""

from __future__ import annotations

from typing import Any

from xray.exceptions import QueryError
from xray_server.query import ast
from xray_server.query.fields import MetricCatalog, Named, Part, check_segments, resolve
from xray_server.query.operands import SIMPLE, not_for, regex
from xray_server.query.operators import (
    COMPARISONS,
    FIELD_OPERATORS,
    LOGICAL_OPERATORS,
    foreign_operator,
    show,
    unknown_operator,
)
from xray_server.query.values import MAX_LIST, Allowance, check_depth, check_text, check_value


class FilterParser:
    """Parses the filter of one part.

    Args:
        part: The part: which fields the filter may name.
        catalog: The metrics that it may name.
        allowance: What the question may still hold.
    """

    def __init__(self, part: Part, catalog: MetricCatalog, allowance: Allowance) -> None:
        self._part: Part = part
        self._catalog = catalog
        self._allowance = allowance

    def parse(self, value: Any, path: str, depth: int) -> ast.Condition:
        """Parse a filter object, every member of which must hold.

        Args:
            value: The JSON object, decoded.
            path: Where it stands in the question.
            depth: How deep it is nested already.

        Raises:
            QueryError: It is not of the query language.
        """
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
        named = self._resolve(key, path)
        if isinstance(value, dict) and any(isinstance(name, str) and name.startswith("$") for name in value):
            return self._operators(named, value, path, depth)
        return self._test(named, "$eq", value, path, depth)

    def _resolve(self, key: str, path: str) -> Named:
        return resolve(self._part, key, path, self._catalog)

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
            if operator == "$options" and "$regex" in value:
                continue
            if operator == "$regex":
                tests.append(regex(named, operand, value.get("$options", ""), path))
            else:
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
        if operator == "$all":
            return self._all(named, operand, path, depth)
        if operator == "$elemMatch":
            return self._elem_match(named, operand, path, depth)
        if operator in SIMPLE:
            return SIMPLE[operator](named, operand, path)
        if operator == "$options":
            raise QueryError("'$options' stands beside '$regex'.", path=path)
        raise unknown_operator(operator, path)

    def _all(self, named: Named, operand: Any, path: str, depth: int) -> ast.Condition:
        values = self._list("$all", operand, path)
        if any(isinstance(item, dict) and "$elemMatch" in item for item in values):
            tests = []
            for i, item in enumerate(values):
                inner = f"{path}[{i}]"
                if not isinstance(item, dict) or list(item) != ["$elemMatch"]:
                    raise QueryError("'$all' takes either values or objects of $elemMatch, not both.", path=inner)
                self._allowance.condition(inner)
                tests.append(self._elem_match(named, item["$elemMatch"], f"{inner}.$elemMatch", depth + 1))
            return _all_of(tests)
        found = [self._test(named, "$eq", item, f"{path}[{i}]", depth + 1) for i, item in enumerate(values)]
        # As in MongoDB: no value at all is held by nothing.
        return _all_of(found) if found else ast.NOTHING

    def _elem_match(self, named: Named, operand: Any, path: str, depth: int) -> ast.Condition:
        check_depth(depth, path)
        if named.kind not in ("json", "strings"):
            raise not_for(named, "$elemMatch", "a list", path)
        if not isinstance(operand, dict):
            raise QueryError(
                "'$elemMatch' takes an object.",
                path=path,
                hint='Write {"$elemMatch": {"name": "a", "score": {"$gt": 1}}}.',
            )
        first = next(iter(operand), "")
        if isinstance(first, str) and first.startswith("$") and first not in LOGICAL_OPERATORS:
            element = Named(ast.Field(()), "json" if named.kind == "json" else "string")
            condition, of = self._operators(element, operand, path, depth + 1), "values"
        elif named.kind == "strings":
            raise QueryError(
                f"'{named.reference}' is a list of strings, which have no fields.",
                code="wrong_type",
                path=path,
                hint='Write {"$elemMatch": {"$gte": "a", "$lt": "b"}}.',
            )
        else:
            condition, of = (
                _ElementParser(self._part, self._catalog, self._allowance).parse(operand, path, depth),
                "objects",
            )
        return ast.Test(named.reference, ast.ElemMatch(condition, "values" if of == "values" else "objects"))

    def _list(self, operator: str, operand: Any, path: str) -> list[Any] | tuple[Any, ...]:
        if not isinstance(operand, list | tuple):
            raise QueryError(f"'{operator}' takes a list.", path=path, hint=f'Write {{"{operator}": [value, …]}}.')
        if len(operand) > MAX_LIST:
            raise QueryError(f"'{operator}' takes at most {MAX_LIST} values.", code="too_large", path=path)
        return operand

    def _test(self, named: Named, operator: str, value: Any, path: str, depth: int) -> ast.Condition:
        op = COMPARISONS[operator]
        checked = check_value(named, value, path, self._allowance, exact=op == "eq", depth=depth)
        return ast.Test(named.reference, ast.Compare(op, checked))

    def _one_of(self, named: Named, operator: str, operand: Any, path: str, depth: int) -> ast.Condition:
        values = (
            check_value(named, item, f"{path}[{i}]", self._allowance, exact=True, depth=depth + 1)
            for i, item in enumerate(self._list(operator, operand, path))
        )
        return ast.Test(named.reference, ast.In(tuple(values)))


def _all_of(conditions: list[ast.Condition]) -> ast.Condition:
    return conditions[0] if len(conditions) == 1 else ast.And(tuple(conditions))


class _ElementParser(FilterParser):
    """Parses the filter of ``$elemMatch``: on the fields of objects in recorded JSON, which may have any names."""

    def _resolve(self, key: str, path: str) -> Named:
        segments = tuple(key.split("."))
        check_segments(segments, key, path)
        return Named(ast.Field(segments), "json")

    def _refuse_operator(self, key: str, path: str) -> None:
        if key in FIELD_OPERATORS:
            raise QueryError(
                f"'{key}' stands below a field.", path=path, hint=f'Write {{"field": {{"{key}": …}}}}, or {key} first.'
            )
        raise unknown_operator(key, path, *LOGICAL_OPERATORS)
