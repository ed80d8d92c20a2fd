"""MongoDB filters as values, and conditions that a filter may know only in part."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xray_server.stores import bounds

Filter = dict[str, Any]

TRUE: Filter = {}
FALSE: Filter = {"$nor": [{}]}


def all_of(parts: Iterable[Filter]) -> Filter:
    """``$and``, with the parts that do not matter left out."""
    kept = [part for part in parts if part != TRUE]
    if FALSE in kept:
        return FALSE
    together: Filter = {}
    for part in kept:
        if together.keys() & part.keys():
            return {"$and": kept}
        together |= part
    return together


def any_of(parts: Iterable[Filter]) -> Filter:
    """``$or``, with the parts that do not matter left out."""
    kept = [part for part in parts if part != FALSE]
    if TRUE in kept:
        return TRUE
    if not kept:
        return FALSE
    return kept[0] if len(kept) == 1 else {"$or": kept}


def negated(part: Filter) -> Filter:
    """What the filter does not hold for."""
    if part in (TRUE, FALSE):
        return FALSE if part == TRUE else TRUE
    return {"$nor": [part]}


class Bounds(bounds.Bounds[Filter]):
    """What a filter knows about a condition."""

    all_of = staticmethod(all_of)
    any_of = staticmethod(any_of)
    negated = staticmethod(negated)


UNKNOWN = Bounds(FALSE, TRUE)
"""A condition that only the evaluator can decide."""

exact, both, either = Bounds.exact, Bounds.both, Bounds.either
