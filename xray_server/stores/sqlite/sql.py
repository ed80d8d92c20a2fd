"""Pieces of SQL with their parameters, and conditions that SQL may know only in part."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from xray_server.stores import bounds


@dataclass(frozen=True, slots=True)
class Sql:
    """A piece of SQL and the values of its question marks.

    As a condition it is two-valued: it is never NULL, so that ``NOT`` means what it says.
    """

    text: str
    params: tuple[Any, ...] = ()


TRUE = Sql("1")
FALSE = Sql("0")


def all_of(parts: Iterable[Sql]) -> Sql:
    """``AND``, with the parts that do not matter left out."""
    return _join(parts, " AND ", neutral=TRUE, decisive=FALSE)


def any_of(parts: Iterable[Sql]) -> Sql:
    """``OR``, with the parts that do not matter left out."""
    return _join(parts, " OR ", neutral=FALSE, decisive=TRUE)


def negated(part: Sql) -> Sql:
    """``NOT``."""
    if part in (TRUE, FALSE):
        return FALSE if part == TRUE else TRUE
    return Sql(f"NOT {part.text}", part.params)


def _join(parts: Iterable[Sql], word: str, *, neutral: Sql, decisive: Sql) -> Sql:
    kept = [part for part in dict.fromkeys(parts) if part != neutral]
    if decisive in kept:
        return decisive
    if not kept:
        return neutral
    if len(kept) == 1:
        return kept[0]
    # SQLite refuses expressions deeper than 1,000; a long flat chain counts as deep, so that it is halved.
    if len(kept) > 64:
        middle = len(kept) // 2
        kept = [_join(half, word, neutral=neutral, decisive=decisive) for half in (kept[:middle], kept[middle:])]
    return Sql(f"({word.join(part.text for part in kept)})", tuple(p for part in kept for p in part.params))


class Bounds(bounds.Bounds[Sql]):
    """What SQL knows about a condition."""

    all_of = staticmethod(all_of)
    any_of = staticmethod(any_of)
    negated = staticmethod(negated)


UNKNOWN = Bounds(FALSE, TRUE)
"""A condition that only the evaluator can decide."""

exact, both, either = Bounds.exact, Bounds.both, Bounds.either
