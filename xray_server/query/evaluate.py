"""Whether a document satisfies a condition, with MongoDB's meaning of paths, arrays, nulls and types.

A path may lead to several values: below an array it goes into each element that is an object, and into the element
that an index segment (``a.0.b``) names. At its end an array counts as each of its elements and as itself. A test
holds where it holds for one of the values. A path that leads nowhere gives the one value :data:`MISSING`, except
below an array, where elements that are no objects give nothing at all.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from xray_server.json_rules import INT64_MAX, INT64_MIN
from xray_server.query import ast
from xray_server.query.ordering import compare_values, type_order
from xray_server.query.regex import finder

Predicate: TypeAlias = Callable[[Mapping[str, Any]], bool]
_ValueTest: TypeAlias = Callable[[Any], bool]

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


class _Missing:
    """The type of :data:`MISSING`."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()
"""What a path gives that leads nowhere."""


def matches(condition: ast.Condition, document: Mapping[str, Any]) -> bool:
    """Whether a document satisfies a condition; for many documents, :func:`compile_condition` once is faster.

    Args:
        condition: The parsed condition.
        document: A run, a stage or a candidate, with its times as milliseconds since 1970.
    """
    return compile_condition(condition)(document)


def compile_condition(condition: ast.Condition) -> Predicate:
    """A function that says whether a document satisfies a condition.

    Args:
        condition: The parsed condition.
    """
    match condition:
        case ast.And(conditions):
            return _all_of([compile_condition(inner) for inner in conditions])
        case ast.Or(conditions):
            return _any_of([compile_condition(inner) for inner in conditions])
        case ast.Not(inner):
            holds = compile_condition(inner)
            return lambda document: not holds(document)
        case ast.Test(reference, ast.Size() | ast.ElemMatch() as test):
            # These are about an array itself, never about its elements one by one.
            return _compile_reference(reference, compile_special(test), whole=True)
        case ast.Test(reference, ast.Special() as test):
            return _compile_reference(reference, compile_special(test))
        case ast.Test(reference, ast.Exists(wanted=False)):
            exists = _compile_reference(reference, _exists)
            return lambda document: not exists(document)
        case ast.Test(reference, test):
            return _compile_reference(reference, _compile_test(test))


def _all_of(predicates: list[Predicate]) -> Predicate:
    if len(predicates) == 1:
        return predicates[0]

    def all_hold(document: Mapping[str, Any]) -> bool:
        for holds in predicates:  # noqa: SIM110 - a generator expression takes twice the time here
            if not holds(document):
                return False
        return True

    return all_hold


def _any_of(predicates: list[Predicate]) -> Predicate:
    if len(predicates) == 1:
        return predicates[0]

    def one_holds(document: Mapping[str, Any]) -> bool:
        for holds in predicates:  # noqa: SIM110 - as above
            if holds(document):
                return True
        return False

    return one_holds


# --- paths ------------------------------------------------------------------------------------------------------


def _compile_reference(reference: ast.Reference, test: _ValueTest, *, whole: bool = False) -> Predicate:
    at_end = test if whole else _at_end(test)
    if isinstance(reference, ast.Field):
        # Without a path the test is about the element of an array, which is not taken apart further.
        return _compile_path(reference.path, test, at_end) if reference.path else test
    name, key = reference.name, reference.key

    def metric_holds(document: Mapping[str, Any]) -> bool:
        metrics = document.get("metrics")
        value = metrics.get(name, MISSING) if isinstance(metrics, dict) else MISSING
        if key is not None:
            value = value.get(key, MISSING) if isinstance(value, dict) else MISSING
        return at_end(value)

    return metric_holds


def _compile_path(path: tuple[str, ...], test: _ValueTest, at_end: _ValueTest) -> Predicate:
    # From the last segment to the first: each step needs the two functions of the step behind it, and building them
    # once keeps this linear in the length of the path.
    *way, last = path
    below_object = _member(last, at_end)
    # What an index names is taken as it is: an array there does not count as its elements.
    below_array = _elements(last, below_object, test)
    missing = test(MISSING)
    for segment in reversed(way):
        step_into = _member(segment, _step(below_object, below_array, otherwise=missing))
        below_array = _elements(segment, step_into, _step(below_object, below_array, otherwise=False))
        below_object = step_into
    return below_object


def _at_end(test: _ValueTest) -> _ValueTest:
    def holds(value: Any) -> bool:
        if type(value) is list:
            return any(map(test, value)) or test(value)
        return test(value)

    return holds


def _member(key: str, follow: _ValueTest) -> _ValueTest:
    return lambda document: follow(document.get(key, MISSING))


def _step(below_object: _ValueTest, below_array: _ValueTest, *, otherwise: bool) -> _ValueTest:
    def holds(value: Any) -> bool:
        if type(value) is dict:
            return below_object(value)
        if type(value) is list:
            return below_array(value)
        return otherwise

    return holds


def _elements(segment: str, below_object: _ValueTest, follow_index: _ValueTest) -> _ValueTest:
    index = _array_index(segment)

    def holds(items: Any) -> bool:
        for item in items:
            if type(item) is dict and below_object(item):
                return True
        return index is not None and index < len(items) and follow_index(items[index])

    return holds


def _array_index(segment: str) -> int | None:
    """The index that a path's segment names in an array; ``00`` and the digits of other scripts name none."""
    if segment.isascii() and segment.isdecimal() and len(segment) < 10 and str(int(segment)) == segment:
        return int(segment)
    return None


# --- tests on one value -----------------------------------------------------------------------------------------


def _exists(value: Any) -> bool:
    return value is not MISSING


def _compile_test(test: ast.Operator) -> _ValueTest:
    match test:
        case ast.Exists():
            return _exists
        case ast.In(values):
            return _compile_in(values)
        case ast.Compare("eq", value):
            return _compile_equal(value)
        case ast.Compare(op, value):
            return _compile_order(op, value)


def _compile_equal(value: Any) -> _ValueTest:
    if value is None:
        return lambda found: found is None or found is MISSING
    if isinstance(value, bool):
        return lambda found: found is value
    if isinstance(value, int | float):
        # Python takes True for 1; and it compares an int with a float exactly, as MongoDB does.
        return lambda found: found == value and type(found) is not bool
    if isinstance(value, str):
        return lambda found: type(found) is str and found == value
    return lambda found: type(found) is type(value) and compare_values(found, value) == 0


def _compile_in(values: tuple[Any, ...]) -> _ValueTest:
    has_null = None in values
    booleans = [value for value in values if isinstance(value, bool)]
    scalars = {value for value in values if isinstance(value, int | float | str) and not isinstance(value, bool)}
    compounds = [_compile_equal(value) for value in values if isinstance(value, list | dict)]

    def holds(found: Any) -> bool:
        if found is None or found is MISSING:
            return has_null
        kind = type(found)
        if kind is bool:
            return found in booleans
        if kind is list or kind is dict:
            return any(equal(found) for equal in compounds)
        return found in scalars

    return holds


_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}


def _compile_order(op: str, value: Any) -> _ValueTest:
    """An ordering test: it holds only between values of one type, where null equals null and what is missing."""
    holds = _ORDER[op]
    bracket = type_order(value)
    if value is None:
        with_equal = op in ("gte", "lte")
        return lambda found: with_equal and (found is None or found is MISSING)
    if isinstance(value, list | dict):
        kind = type(value)
        return lambda found: type(found) is kind and holds(compare_values(found, value), 0)
    return lambda found: found is not MISSING and type_order(found) == bracket and holds(found, value)


# --- operators beyond the core ----------------------------------------------------------------------------------


def compile_special(test: ast.Special) -> _ValueTest:
    """A function that says whether one value satisfies an operator beyond the core.

    Args:
        test: The operator.
    """
    match test:
        case ast.Regex(pattern, flags):
            return finder(pattern, flags)
        case ast.Mod(divisor, remainder):
            return _compile_mod(divisor, remainder)
        case ast.Size(size):
            return lambda found: type(found) is list and len(found) == size
        case ast.Type(names):
            return lambda found: found is not MISSING and type_name(found) in names
        case ast.ElemMatch(condition, of):
            return _compile_elem_match(compile_condition(condition), of)
    raise TypeError(test)


def _compile_mod(divisor: int, remainder: int) -> _ValueTest:
    def holds(found: Any) -> bool:
        if type(found) is not int:
            if type(found) is not float or not math.isfinite(found):
                return False
            found = math.trunc(found)
            if not INT64_MIN <= found <= INT64_MAX:
                return False
        left: int = abs(found) % abs(divisor)
        return (-left if found < 0 else left) == remainder

    return holds


def _compile_elem_match(holds: _ValueTest, of: str) -> _ValueTest:
    if of == "values":
        return lambda found: type(found) is list and any(map(holds, found))

    def object_holds(item: Any) -> bool:
        if type(item) is list:
            # An array counts as an object whose keys are its indexes.
            item = {str(index): inner for index, inner in enumerate(item)}
        return type(item) is dict and holds(item)

    return lambda found: type(found) is list and any(map(object_holds, found))


def type_name(value: Any) -> str:
    """MongoDB's name of a JSON value's type; an integer is an ``int`` within 32 bits, beyond them a ``long``."""
    if type(value) is int:
        return "int" if INT32_MIN <= value <= INT32_MAX else "long"
    return _TYPE_NAMES[type(value)]


_TYPE_NAMES: dict[type, str] = {
    type(None): "null",
    bool: "bool",
    float: "double",
    str: "string",
    list: "array",
    dict: "object",
}
