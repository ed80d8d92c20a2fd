"""A second opinion on filters: a matcher written from MongoDB's documentation, sharing nothing with the product.

It interprets the raw JSON filter on the raw document, each time anew. It lists the values that a path leads to and
then asks each test about the list; it orders values by keys that Python can sort.

Sources: the manual's pages on query operators, "Query an Array", "Query an Array of Embedded Documents", "Query for
Null or Missing Fields" and "Comparison/Sort Order", and, where these are silent (index segments, arrays of scalars
below a dotted path), what the server's own tests say.
"""

from __future__ import annotations

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
            verdict = judge_values(reach(document, key.split(".")), condition)
        if not verdict:
            return False
    return True


def judge_values(values: list[Any], condition: Any) -> bool:
    """Whether the values that a path leads to satisfy what stands beside it in the filter."""
    if not (isinstance(condition, dict) and any(name[:1] == "$" for name in condition)):
        condition = {"$eq": condition}
    return all(judge_operator(values, name, operand) for name, operand in condition.items())


def judge_operator(values: list[Any], name: str, operand: Any) -> bool:
    if name == "$not":
        return not judge_values(values, operand)
    if name == "$ne":
        return not judge_operator(values, "$eq", operand)
    if name == "$nin":
        return not judge_operator(values, "$in", operand)
    if name == "$in":
        return any(judge_operator(values, "$eq", one) for one in operand)
    if name == "$exists":
        return bool(operand) == any(value is not ABSENT for value in values)
    return any(compares(value, name, operand) for value in values)


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


def reach(value: Any, segments: list[str], *, by_index: bool = False) -> list[Any]:
    """Every value that a path leads to from here, with ABSENT where a way ends early."""
    if not segments:
        return [*value, value] if isinstance(value, list) and not by_index else [value]
    head, *rest = segments
    if isinstance(value, dict):
        return reach(value[head], rest) if head in value else [ABSENT]
    if not isinstance(value, list):
        return [] if by_index else [ABSENT]
    found: list[Any] = []
    for index, item in enumerate(value):
        if isinstance(item, dict):
            found += reach(item, segments)
        if head == str(index):
            found += reach(item, rest, by_index=True)
    return found
