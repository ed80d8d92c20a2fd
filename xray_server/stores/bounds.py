"""Conditions that a store's own language may know only in part."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Bounds(ABC, Generic[T]):
    """What a store's language knows about a condition; a subclass says how its parts are put together.

    Args:
        under: Holds only for what satisfies the condition.
        over: Holds for everything that satisfies the condition, and perhaps for more.

    Where the two are the same the condition is exact. Both are kept because the complement of an approximation from
    above is one from below.
    """

    under: T
    over: T

    @staticmethod
    @abstractmethod
    def all_of(parts: Iterable[T]) -> T:
        """All of the parts."""

    @staticmethod
    @abstractmethod
    def any_of(parts: Iterable[T]) -> T:
        """At least one of the parts."""

    @staticmethod
    @abstractmethod
    def negated(part: T) -> T:
        """What the part does not hold for."""

    def __invert__(self) -> Self:
        return type(self)(self.negated(self.over), self.negated(self.under))

    @classmethod
    def exact(cls, part: T) -> Self:
        """A condition that the store decides."""
        return cls(part, part)

    @classmethod
    def both(cls, parts: Iterable[Self]) -> Self:
        """All of the conditions."""
        given = list(parts)
        return cls(cls.all_of(part.under for part in given), cls.all_of(part.over for part in given))

    @classmethod
    def either(cls, parts: Iterable[Self]) -> Self:
        """At least one of the conditions."""
        given = list(parts)
        return cls(cls.any_of(part.under for part in given), cls.any_of(part.over for part in given))
