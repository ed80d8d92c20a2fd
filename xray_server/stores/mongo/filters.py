"""MongoDB filters as values, and conditions that a filter may know only in part."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from xray_server.stores import bounds
from xray_server.stores.mongo.layout import LISTED

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


# --- what a filter lets through ---------------------------------------------------------------------------------


def says_the_project(filter_: Filter) -> bool:
    """Whether a filter lets through documents of one project only, because it names a number or a key of its."""
    # Not by a metric's: with the project beside it, a server may as well go by start, where nearly all stages match.
    return _names_one_of(filter_, (LISTED, "l", "r", "_id"))


def names_keys(filter_: Filter) -> bool:
    """Whether a filter names the keys of the documents, or of their runs: it lets few through."""
    return _names_one_of(filter_, ("r", "_id"))


def names_key_of_run(filter_: Filter) -> bool:
    """Whether a filter names the key that users gave runs: it lets few runs through."""
    return _names_one_of(filter_, ("pk",))


def names_start(filter_: Filter) -> bool:
    """Whether a filter names the one start of what it lets through, or its absence: an index leads to few documents."""
    return _names_one_of(filter_, ("s",))


def keys_named(filter_: Filter) -> int | None:
    """How many keys of documents a filter names; None where it names none."""
    for part in parts(filter_):
        wanted = part.get("_id")
        if wanted is not None and _is_equality(wanted):
            return len(wanted["$in"]) if isinstance(wanted, dict) else 1
    return None


def asks_for_value(filter_: Filter, path: str) -> bool:
    """Whether a filter lets through only documents that have a value at a path, because it compares that."""
    for part in parts(filter_):
        wanted = part.get(path)
        if isinstance(wanted, dict):
            if any(wanted.get(op) is not None for op in ("$gt", "$gte", "$lt", "$lte")) or wanted == {"$ne": None}:
                return True
        elif wanted is not None:
            return True
    return False


def parts(filter_: Filter) -> list[Filter]:
    """The filters that all hold."""
    inner = [part for each in filter_.get("$and", ()) for part in parts(each)]
    return [filter_, *inner]


def _names_one_of(filter_: Filter, paths: Sequence[str]) -> bool:
    return any(path in paths and _is_equality(wanted) for part in parts(filter_) for path, wanted in part.items())


def _is_equality(wanted: Any) -> bool:
    return not isinstance(wanted, dict) or wanted.keys() == {"$in"}
