"""What stands behind the operators that take no other conditions: ``$regex``, ``$mod``, ``$size``, ``$type``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from xray.exceptions import QueryError
from xray_server.query import ast
from xray_server.query.fields import Named
from xray_server.query.operators import hint_for, show
from xray_server.query.regex import FLAGS, check_pattern
from xray_server.query.values import INT64_MAX, INT64_MIN, check_text

_TYPES: dict[str | int, str] = {
    "double": "double",
    "string": "string",
    "object": "object",
    "array": "array",
    "bool": "bool",
    "null": "null",
    "int": "int",
    "long": "long",
    1: "double",
    2: "string",
    3: "object",
    4: "array",
    8: "bool",
    10: "null",
    16: "int",
    18: "long",
}
"""MongoDB's names and numbers of the types that JSON has."""

_NUMBERS = frozenset({"int", "long", "double"})
_FOREIGN_TYPES: dict[str | int, str] = {
    "date": "What was recorded as a time is ISO 8601 text: its type is 'string'.",
    9: "What was recorded as a time is ISO 8601 text: its type is 'string'.",
    "objectId": "Ids are text: their type is 'string'.",
    7: "Ids are text: their type is 'string'.",
    "decimal": "What was recorded as a decimal is text: its type is 'string'.",
    19: "What was recorded as a decimal is text: its type is 'string'.",
}


def not_for(named: Named, operator: str, takes: str, path: str) -> QueryError:
    """The error for an operator that can never hold for a field.

    Args:
        named: The field or metric.
        operator: The operator.
        takes: What it is for.
        path: Where it stands in the question.
    """
    return QueryError(
        f"'{operator}' is for {takes}; '{show(str(named.reference))}' never holds one.", code="wrong_type", path=path
    )


def regex(named: Named, pattern: Any, options: Any, path: str) -> ast.Condition:
    """``$regex`` with its ``$options``.

    Args:
        named: What is searched.
        pattern: What stands behind ``$regex``.
        options: What stands behind ``$options``.
        path: Where both stand.

    Raises:
        QueryError: They are no pattern and options that RE2 takes.
    """
    place = f"{path}.$regex"
    if named.kind not in ("string", "strings", "id", "json"):
        raise not_for(named, "$regex", "text", place)
    if not isinstance(pattern, str):
        raise QueryError("'$regex' takes a pattern as a string.", path=place)
    if not isinstance(options, str):
        raise QueryError("'$options' takes letters as a string.", path=f"{path}.$options")
    for letter in check_text(options, f"{path}.$options"):
        if letter not in (*FLAGS, "u"):
            raise QueryError(
                f"'$options' has no '{show(letter)}'.",
                path=f"{path}.$options",
                hint="It has i (case does not matter), m (^ and $ at each line) and s (. takes line ends).",
            )
    flags = "".join(sorted(set(options) - {"u"}))
    check_pattern(check_text(pattern, place), flags, place)
    return ast.Test(named.reference, ast.Regex(pattern, flags))


def _mod(named: Named, operand: Any, path: str) -> ast.Condition:
    if named.kind not in ("number", "count", "json"):
        raise not_for(named, "$mod", "a number", path)
    if not isinstance(operand, list | tuple) or len(operand) != 2 or not all(map(_is_finite, operand)):
        raise QueryError("'$mod' takes a divisor and a remainder.", path=path, hint='Write {"$mod": [4, 0]}.')
    divisor, remainder = map(math.trunc, operand)
    if not all(INT64_MIN <= number <= INT64_MAX for number in (divisor, remainder)):
        raise QueryError("'$mod' takes integers within 64 bits.", path=path)
    if divisor == 0:
        raise QueryError("'$mod' cannot divide by 0.", path=f"{path}[0]")
    return ast.Test(named.reference, ast.Mod(divisor, remainder))


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _size(named: Named, operand: Any, path: str) -> ast.Condition:
    if named.kind not in ("json", "strings"):
        raise not_for(named, "$size", "a list", path)
    if not _is_finite(operand) or operand != math.trunc(operand) or not 0 <= operand <= INT64_MAX:
        raise QueryError("'$size' takes a whole number from 0 on.", path=path)
    return ast.Test(named.reference, ast.Size(int(operand)))


def _type(named: Named, operand: Any, path: str) -> ast.Condition:
    given = operand if isinstance(operand, list | tuple) else [operand]
    if not given:
        raise QueryError("'$type' takes at least one type.", path=path)
    names: set[str] = set()
    is_time = False
    for i, word in enumerate(given):
        place = f"{path}[{i}]" if given is operand else path
        if named.kind == "time" and word in ("date", 9):
            is_time = True
        elif word == "number":
            names |= _NUMBERS
        else:
            names.add(_type_of(named, word, place))
    if named.kind == "time":
        # The schema's own times are dates, whatever a store makes of them; nothing else is ever there.
        return ast.Test(named.reference, ast.Exists(wanted=True)) if is_time else ast.NOTHING
    return ast.Test(named.reference, ast.Type(frozenset(names)))


def _type_of(named: Named, word: Any, path: str) -> str:
    if isinstance(word, bool) or not isinstance(word, str | int) or word not in _TYPES:
        hint = _FOREIGN_TYPES.get(word) if isinstance(word, str | int) and not isinstance(word, bool) else None
        if hint is None and isinstance(word, str):
            words = [name for name in (*_TYPES, "number") if isinstance(name, str)]
            hint = hint_for(word, *words) or f"There are {', '.join(words)}."
        is_short = isinstance(word, int) and not isinstance(word, bool) and abs(word) < 10**9
        shown = str(word) if is_short else show(word)
        raise QueryError(f"No value is of the type '{shown}'.", code="unknown_type", path=path, hint=hint)
    if named.kind in ("number", "count") and _TYPES[word] in _NUMBERS:
        raise QueryError(
            f"'{show(str(named.reference))}' is a number of no particular type.", path=path, hint="Write 'number'."
        )
    return _TYPES[word]


SIMPLE: dict[str, Callable[[Named, Any, str], ast.Condition]] = {"$mod": _mod, "$size": _size, "$type": _type}
"""Operator → what makes a condition of the operand, given its place in the question."""
