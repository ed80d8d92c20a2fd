"""MongoDB's order of JSON values, across types and within each."""

from __future__ import annotations

from typing import Any

_TYPE_ORDER: dict[type, int] = {type(None): 0, int: 1, float: 1, str: 2, dict: 3, list: 4, bool: 5}


def type_order(value: Any) -> int:
    """The place of a JSON value's type in MongoDB's order of types; integers and floats share one."""
    return _TYPE_ORDER[type(value)]


def compare_values(left: Any, right: Any) -> int:
    """Compare two JSON values in MongoDB's order: negative, zero or positive.

    Objects compare member by member in their order: by type, then by key, then by value; arrays element by element;
    what ends first is less. Strings compare by code points, which is the order of their UTF-8 bytes.
    """
    by_type = type_order(left) - type_order(right)
    if by_type:
        return by_type
    if isinstance(left, dict):
        for (left_key, left_item), (right_key, right_item) in zip(left.items(), right.items(), strict=False):
            by_item = type_order(left_item) - type_order(right_item)
            by_item = by_item or _compare(left_key, right_key) or compare_values(left_item, right_item)
            if by_item:
                return by_item
        return len(left) - len(right)
    if isinstance(left, list):
        for left_item, right_item in zip(left, right, strict=False):
            by_item = compare_values(left_item, right_item)
            if by_item:
                return by_item
        return len(left) - len(right)
    return 0 if left is None else _compare(left, right)


def _compare(left: Any, right: Any) -> int:
    return int(left > right) - int(left < right)
