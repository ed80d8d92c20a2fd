"""MongoDB filters as values, and conditions that a filter may know only in part."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a filter knows about a condition.

    Args:
        under: Holds only for documents that satisfy the condition.
        over: Holds for every document that satisfies the condition, and perhaps for others.

    Where the two are the same the filter is exact. Both are kept because the complement of an approximation from
    above is one from below.
    """

    under: Filter
    over: Filter

    def __invert__(self) -> Bounds:
        return Bounds(negated(self.over), negated(self.under))


UNKNOWN = Bounds(FALSE, TRUE)
"""A condition that only the evaluator can decide."""


def exact(filter_: Filter) -> Bounds:
    """A condition that a filter decides."""
    return Bounds(filter_, filter_)


def both(parts: Iterable[Bounds]) -> Bounds:
    """All of the conditions."""
    given = list(parts)
    return Bounds(all_of(part.under for part in given), all_of(part.over for part in given))


def either(parts: Iterable[Bounds]) -> Bounds:
    """At least one of the conditions."""
    given = list(parts)
    return Bounds(any_of(part.under for part in given), any_of(part.over for part in given))
