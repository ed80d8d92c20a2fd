"""Pieces of SQL with their parameters, and conditions that SQL may know only in part."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


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


@dataclass(frozen=True, slots=True)
class Bounds:
    """What SQL knows about a condition.

    Args:
        under: Holds only for rows that satisfy the condition.
        over: Holds for every row that satisfies the condition, and perhaps for others.

    Where the two are the same the SQL is exact. Both are kept because the complement of an approximation from above
    is one from below.
    """

    under: Sql
    over: Sql

    def __invert__(self) -> Bounds:
        return Bounds(negated(self.over), negated(self.under))


UNKNOWN = Bounds(FALSE, TRUE)
"""A condition that only the evaluator can decide."""


def exact(sql: Sql) -> Bounds:
    """A condition that SQL decides."""
    return Bounds(sql, sql)


def both(parts: Iterable[Bounds]) -> Bounds:
    """All of the conditions."""
    given = list(parts)
    return Bounds(all_of(part.under for part in given), all_of(part.over for part in given))


def either(parts: Iterable[Bounds]) -> Bounds:
    """At least one of the conditions."""
    given = list(parts)
    return Bounds(any_of(part.under for part in given), any_of(part.over for part in given))
