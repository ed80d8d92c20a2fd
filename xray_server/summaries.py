"""What many numbers sum up to, in a form that can be put together again: counts, an exact sum, bounds, a sketch.

The sketch answers for quantiles within :data:`ACCURACY`: numbers are counted in bins whose bounds grow by a constant
factor, so that a bin's middle is never farther from any of its numbers than that share of the number. This is the
sketch of Masson, Rim and Lee, "DDSketch: A Fast and Fully-Mergeable Quantile Sketch with Relative-Error Guarantees",
Proceedings of the VLDB Endowment 12(12), 2019.

Numbers are taken as doubles. In whichever order and grouping they come, the summary is the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

ACCURACY = 0.01
"""How far a quantile may lie from the number of its rank, as a share of that number."""

MAX_BINS = 2048
"""Bins of a sketch, for positive and for negative numbers each. Where more would be needed, those of the smallest
numbers by magnitude are counted in one: for that the numbers have to spread over at least 17 powers of ten."""

_GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
_BINS_PER_E = 1 / math.log(_GAMMA)
_SCALE_BITS = 1074
_SCALE = 1 << _SCALE_BITS
"""Every double is a whole number of these parts: of its smallest positive one."""


class Summary:
    """Takes numbers, and says what they sum up to."""

    __slots__ = ("_bins", "_high", "_low", "_nulls", "_total", "_zeros", "count")

    def __init__(self) -> None:
        self.count = 0
        self._nulls = 0
        self._total = 0
        self._low = math.inf
        self._high = -math.inf
        self._zeros = 0
        self._bins: dict[int, dict[int, int]] = {1: {}, -1: {}}

    def add(self, value: float | None) -> None:
        """Take one number, or the absence of one.

        Args:
            value: A finite number, or None.
        """
        if value is None:
            self._nulls += 1
            return
        number = float(value) + 0.0  # of the two zeros the positive one
        self.count += 1
        self._total += _parts(number)
        self._low = min(self._low, number)
        self._high = max(self._high, number)
        if number == 0:
            self._zeros += 1
            return
        bins = self._bins[1 if number > 0 else -1]
        key = math.ceil(math.log(abs(number)) * _BINS_PER_E)
        bins[key] = bins.get(key, 0) + 1
        if len(bins) > MAX_BINS:
            _collapse(bins)

    def as_dict(self) -> dict[str, Any]:
        """The summary as plain JSON.

        Returns:
            ``count`` and ``nulls``, and where there is a number: ``sum``, correctly rounded, with ``rest``, what the
            rounding left out of the exact sum (``sum`` is None where a double cannot hold it); ``min`` and ``max``;
            ``zeros``; ``positive`` and ``negative``: bin and count, ascending.
        """
        if not self.count:
            return {"count": 0, "nulls": self._nulls}
        rounded, rest = _rounded(self._total)
        return {
            "count": self.count,
            "nulls": self._nulls,
            "sum": rounded,
            "rest": rest,
            "min": self._low,
            "max": self._high,
            "zeros": self._zeros,
            "positive": [list(item) for item in sorted(self._bins[1].items())],
            "negative": [list(item) for item in sorted(self._bins[-1].items())],
        }


def summarize(values: Iterable[float | None]) -> dict[str, Any]:
    """The summary of some numbers.

    Args:
        values: Finite numbers, and None for each one that is absent.
    """
    summary = Summary()
    for value in values:
        summary.add(value)
    return summary.as_dict()


def merge_summaries(summaries: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The summary of all that some summaries have taken.

    It is what a :class:`Summary` of all their numbers says.
    """
    found = list(summaries)
    count, nulls = sum(each["count"] for each in found), sum(each["nulls"] for each in found)
    if not count:
        return {"count": 0, "nulls": nulls}
    found = [each for each in found if each["count"]]
    known = all(each["sum"] is not None for each in found)
    rounded, rest = _sum_of([part for each in found for part in (each["sum"], *each["rest"])]) if known else (None, [])
    return {
        "count": count,
        "nulls": nulls,
        "sum": rounded,
        "rest": rest,
        "min": min(each["min"] for each in found),
        "max": max(each["max"] for each in found),
        "zeros": sum(each["zeros"] for each in found),
        "positive": _merged_bins(each["positive"] for each in found),
        "negative": _merged_bins(each["negative"] for each in found),
    }


def _merged_bins(all_of_them: Iterable[Iterable[tuple[int, int]]]) -> list[list[int]]:
    bins: dict[int, int] = {}
    for some in all_of_them:
        for key, count in some:
            bins[key] = bins.get(key, 0) + count
    _collapse(bins)
    return [list(item) for item in sorted(bins.items())]


def _sum_of(doubles: list[float]) -> tuple[float | None, list[float]]:
    """What :func:`_rounded` says of their exact sum."""
    left = list(doubles)
    try:
        found = [math.fsum(left)]
        while found[-1]:
            left.append(-found[-1])
            found.append(math.fsum(left))
    except OverflowError:  # of a partial sum; the whole may still be within bounds
        return _rounded(sum(map(_parts, doubles)))
    return found[0] + 0.0, found[1:-1]


def mean(summary: Mapping[str, Any]) -> float | None:
    """The arithmetic mean, or None where there is no number or no sum."""
    if not summary["count"] or summary["sum"] is None:
        return None
    total: float = summary["sum"]
    count: int = summary["count"]
    return total / count


def quantile(summary: Mapping[str, Any], q: float) -> float | None:
    """About the number whose rank is the whole part of ``q * (count - 1)``, counted from 0 in ascending order.

    It is within ``ACCURACY`` of that number, unless its bin was counted together with smaller ones (``MAX_BINS``);
    the smallest and the greatest number are exact.

    Args:
        summary: As :meth:`Summary.as_dict` gave it.
        q: Between 0 and 1.

    Returns:
        The number, or None where there is none.
    """
    count = summary["count"]
    if not count:
        return None
    low: float = summary["min"]
    high: float = summary["max"]
    rank = math.floor(q * (count - 1))
    if rank == 0 or rank == count - 1:
        return low if rank == 0 else high
    for sign, name in ((-1, "negative"), (0, "zeros"), (1, "positive")):
        bins = summary[name] if sign else [(0, summary["zeros"])]
        for key, bin_count in reversed(bins) if sign < 0 else bins:
            rank -= bin_count
            if rank < 0:
                return min(max(sign * _middle(key), low), high)
    return high


def _middle(key: int) -> float:
    """The number that is no farther than ``ACCURACY`` from both bounds of a bin."""
    exponent = key / _BINS_PER_E + math.log(2 / (_GAMMA + 1))
    return math.exp(exponent) if exponent < 709 else math.inf


def _collapse(bins: dict[int, int]) -> None:
    """Count the bins of the smallest magnitude together, so that no more than ``MAX_BINS`` are left.

    The result does not depend on when it happens: the highest bins are always the same ones.
    """
    if len(bins) <= MAX_BINS:
        return
    keys = sorted(bins)
    lowest = keys[-MAX_BINS]
    for key in keys[:-MAX_BINS]:
        bins[lowest] += bins.pop(key)


def _parts(number: float) -> int:
    """A double as a whole number of the smallest parts."""
    numerator, denominator = number.as_integer_ratio()
    return numerator << (_SCALE_BITS + 1 - denominator.bit_length())


def _rounded(total: int) -> tuple[float | None, list[float]]:
    """An exact sum as the nearest double, and the doubles that are left, each the nearest to what is left."""
    doubles: list[float] = []
    try:
        while total:
            doubles.append(total / _SCALE)  # Python rounds the quotient of whole numbers correctly
            total -= _parts(doubles[-1])
    except OverflowError:
        return None, []
    return (doubles[0], doubles[1:]) if doubles else (0.0, [])
