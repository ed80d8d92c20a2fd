"""A second opinion on filters: a matcher written from MongoDB's documentation, sharing nothing with the product.

It interprets the raw JSON filter on the raw document, each time anew. It lists the values that a path leads to and
then asks each test about the list; it orders values by keys that Python can sort.

Sources: the manual's pages on query operators, "Query an Array", "Query an Array of Embedded Documents", "Query for
Null or Missing Fields" and "Comparison/Sort Order", and, where these are silent (index segments, arrays of scalars
below a dotted path), what the server's own tests say.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

ABSENT = type("Absent", (), {"__repr__": lambda _: "ABSENT"})()


def judge(filter_: dict[str, Any], document: dict[str, Any]) -> bool:
    """Whether MongoDB's ``find(filter_)`` would return the document."""
    for key, condition in filter_.items():
        if key == "$and":
            verdict = sum(judge(one, document) for one in condition) == len(condition)
        elif key == "$or":
            verdict = sum(judge(one, document) for one in condition) > 0
        elif key == "$nor":
            verdict = sum(judge(one, document) for one in condition) == 0
        else:
            verdict = judge_place(Place(document, key.split(".")), condition)
        if not verdict:
            return False
    return True


class Place:
    """Where a path of a filter leads: the values themselves, and these with the elements of those that are arrays."""

    def __init__(self, document: Any, segments: list[str]) -> None:
        self.whole = reach(document, segments, spread=False)
        self.values = reach(document, segments)


class Element(Place):
    """One element of an array, inside ``$elemMatch``: it is never taken apart."""

    def __init__(self, value: Any) -> None:
        self.whole = self.values = [value]


def judge_place(place: Place, condition: Any) -> bool:
    """Whether what a path leads to satisfies what stands beside it in the filter."""
    if not (isinstance(condition, dict) and any(name[:1] == "$" for name in condition)):
        condition = {"$eq": condition}
    return all(judge_operator(place, name, operand, condition) for name, operand in condition.items())


def judge_operator(place: Place, name: str, operand: Any, beside: dict[str, Any]) -> bool:
    if name == "$not":
        return not judge_place(place, operand)
    if name == "$ne":
        return not judge_operator(place, "$eq", operand, beside)
    if name == "$nin":
        return not judge_operator(place, "$in", operand, beside)
    if name == "$in":
        return any(judge_operator(place, "$eq", one, beside) for one in operand)
    if name == "$exists":
        return bool(operand) == any(value is not ABSENT for value in place.values)
    if name == "$options":
        return True
    if name == "$all":
        return bool(operand) and all(
            judge_place(place, one if isinstance(one, dict) and "$elemMatch" in one else {"$eq": one})
            for one in operand
        )
    if name == "$size":
        return any(isinstance(value, list) and len(value) == operand for value in place.whole)
    if name == "$elemMatch":
        return any(has_element(value, operand) for value in place.whole if isinstance(value, list))
    if name == "$type":
        wanted = operand if isinstance(operand, list) else [operand]
        return any(value is not ABSENT and set(types_of(value)) & set(wanted) for value in place.values)
    if name == "$mod":
        return any(leaves(value, *operand) for value in place.values)
    if name == "$regex":
        flags = sum({"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL}[o] for o in beside.get("$options", ""))
        return any(isinstance(v, str) and re.search(operand, v, flags | re.ASCII) for v in place.values)
    return any(compares(value, name, operand) for value in place.values)


def has_element(items: list[Any], operand: dict[str, Any]) -> bool:
    first = next(iter(operand), "")
    if first[:1] == "$" and first not in ("$and", "$or", "$nor"):
        return any(judge_place(Element(item), operand) for item in items)
    objects = [
        {str(place): inner for place, inner in enumerate(item)} if isinstance(item, list) else item for item in items
    ]
    return any(judge(operand, item) for item in objects if isinstance(item, dict))


def types_of(value: Any) -> list[Any]:
    """The words and numbers by which ``$type`` knows a value."""
    if value is None:
        return ["null", 10]
    if value is True or value is False:
        return ["bool", 8]
    if isinstance(value, float):
        return ["double", "number", 1]
    if isinstance(value, int):
        return ["number", "int", 16] if value.bit_length() < 32 or value == -(2**31) else ["number", "long", 18]
    return {str: ["string", 2], dict: ["object", 3], list: ["array", 4]}[type(value)]


def leaves(value: Any, divisor: float, remainder: float) -> bool:
    """Whether the whole part of a number leaves the remainder, as division in C does."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return False
    whole, by = int(Fraction(value)), int(divisor)
    if not -(2**63) <= whole < 2**63:
        return False
    return whole - by * int(Fraction(whole, by)) == int(remainder)


def compares(value: Any, name: str, operand: Any) -> bool:
    if value is ABSENT:
        # A missing field counts as null, and only a null is compared with it.
        return operand is None and name in ("$eq", "$gte", "$lte")
    left, right = order_key(value), order_key(operand)
    if left[0] != right[0]:
        return False
    if name == "$eq":
        return left == right
    if name in ("$gt", "$gte"):
        return left > right or (name == "$gte" and left == right)
    if name in ("$lt", "$lte"):
        return left < right or (name == "$lte" and left == right)
    raise ValueError(name)


def order_key(value: Any) -> tuple[Any, ...]:
    """A key under which Python's order of tuples and lists is MongoDB's order of values."""
    if value is None:
        return (5,)
    if value is True or value is False:
        return (40, int(value))
    if isinstance(value, int | float):
        return (10, value)
    if isinstance(value, str):
        return (15, value.encode())
    if isinstance(value, dict):
        members = []
        for key, item in value.items():
            rank, *rest = order_key(item)
            members.append((rank, key.encode(), rest))
        return (20, members)
    if isinstance(value, list):
        return (25, [order_key(item) for item in value])
    raise TypeError(value)


def reach(value: Any, segments: list[str], *, by_index: bool = False, spread: bool = True) -> list[Any]:
    """Every value that a path leads to from here, with ABSENT where a way ends early.

    With ``spread`` an array at the end counts as its elements too.
    """
    if not segments:
        return [*value, value] if spread and isinstance(value, list) and not by_index else [value]
    head, *rest = segments
    if isinstance(value, dict):
        return reach(value[head], rest, spread=spread) if head in value else [ABSENT]
    if not isinstance(value, list):
        return [] if by_index else [ABSENT]
    found: list[Any] = []
    for index, item in enumerate(value):
        if isinstance(item, dict):
            found += reach(item, segments, spread=spread)
        if head == str(index):
            found += reach(item, rest, by_index=True, spread=spread)
    return found
