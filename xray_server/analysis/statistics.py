"""The statistics that the analyses share: tests, effect sizes and robust scales, in the standard library alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import median


def mann_whitney(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """The Mann-Whitney U test, two-sided, with the normal approximation, corrected for ties and continuity.

    Mann and Whitney, "On a Test of Whether one of Two Random Variables is Stochastically Larger than the Other",
    Annals of Mathematical Statistics 18(1), 1947. It asks nothing of the metrics' distributions, which are skewed
    and bounded more often than not.

    Args:
        a: The values of one group, at least one.
        b: Those of the other.

    Returns:
        The p-value, and Cliff's delta: the share of pairs in which ``b`` is greater minus the share in which it is
        smaller, from -1 to 1 (Cliff, "Dominance Statistics", Psychological Bulletin 114(3), 1993).
    """
    n, m = len(a), len(b)
    ranks = _mid_ranks([*a, *b])
    u = sum(ranks[n:]) - m * (m + 1) / 2
    delta = 2 * u / (n * m) - 1
    size = n + m
    ties = sum(count**3 - count for count in Counter([*a, *b]).values())
    variance = n * m / 12 * (size + 1 - ties / (size * (size - 1))) if size > 1 else 0.0
    if variance <= 0:
        return 1.0, delta
    z = max(abs(u - n * m / 2) - 0.5, 0) / math.sqrt(variance)
    return math.erfc(z / math.sqrt(2)), delta


def _mid_ranks(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        stop = start
        while stop < len(order) and values[order[stop]] == values[order[start]]:
            stop += 1
        for place in order[start:stop]:
            ranks[place] = (start + stop + 1) / 2
        start = stop
    return ranks


def clustered_share_test(
    a: Sequence[tuple[float, float]], b: Sequence[tuple[float, float]]
) -> tuple[float, float, float, float]:
    """Compare a share between two groups of runs: Pearson's chi-square after Rao and Scott.

    Candidates of one run are alike, so that counting each as independent makes far too much of a difference. Each
    group's counts are divided by its design effect, which is estimated from how the share varies between its runs:
    Rao and Scott, "A Simple Method for the Analysis of Clustered Binary Data", Biometrics 48(2), 1992. A design effect
    below 1 counts as 1. A group of one run has none that could be estimated, and takes the other's.

    Args:
        a: Of each run of one group how many candidates have the label, and of how many.
        b: The same of the other.

    Returns:
        The p-value (one degree of freedom), Cohen's h (``2 asin sqrt p_b - 2 asin sqrt p_a``: Cohen, "Statistical
        Power Analysis for the Behavioral Sciences", 1988, chapter 6), and the two shares.
    """
    effects = [_design_effect(group) for group in (a, b)]
    known = [effect for effect in effects if effect is not None]
    shares, hits, sizes = [], [], []
    for group, effect in zip((a, b), effects, strict=True):
        used = effect if effect is not None else max(known, default=1.0)
        x, n = sum(x for x, _ in group), sum(n for _, n in group)
        shares.append(x / n if n else 0.0)
        hits.append(x / used)
        sizes.append(n / used)
    h = 2 * math.asin(math.sqrt(shares[1])) - 2 * math.asin(math.sqrt(shares[0]))
    pooled = sum(hits) / sum(sizes) if sum(sizes) else 0.0
    if not all(sizes) or pooled <= 0 or pooled >= 1:
        return 1.0, h, shares[0], shares[1]
    variance = pooled * (1 - pooled) * (1 / sizes[0] + 1 / sizes[1])
    chi_square = (shares[0] - shares[1]) ** 2 / variance
    return math.erfc(math.sqrt(chi_square / 2)), h, shares[0], shares[1]


def _design_effect(group: Sequence[tuple[float, float]]) -> float | None:
    """How many times larger the variance of the share is than if all candidates were independent."""
    given = [(x, n) for x, n in group if n]
    m = len(given)
    if m < 2:
        return None
    total = sum(n for _, n in given)
    share = sum(x for x, _ in given) / total
    if share in (0, 1):
        return 1.0
    variance = m / (m - 1) * sum((x - n * share) ** 2 for x, n in given) / total**2
    return max(variance / (share * (1 - share) / total), 1.0)


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that hold the false discovery rate.

    Benjamini and Hochberg, "Controlling the False Discovery Rate", JRSS B 57(1), 1995: calling everything with an
    adjusted value of at most q a difference, a share of at most q of these is none, on average.

    Args:
        p_values: The p-values of all comparisons that were made.

    Returns:
        The adjusted values in the same order.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__, reverse=True)
    adjusted = [1.0] * len(p_values)
    least = 1.0
    for place, index in enumerate(order):
        least = min(least, p_values[index] * len(p_values) / (len(p_values) - place))
        adjusted[index] = least
    return adjusted


def robust_scale(values: Sequence[float]) -> tuple[float, float]:
    """The median, and a scale that a few outliers do not move.

    The scale is the largest of: 1.4826 times the median absolute deviation, which estimates the standard deviation of a
    normal distribution (Rousseeuw and Croux, "Alternatives to the Median Absolute Deviation", JASA 88(424), 1993);
    the mean absolute deviation times 1.2533, which still says something where more than half of the values are equal;
    and a thousandth of the median's size, so that rounding is no deviation.

    Args:
        values: At least one number.
    """
    middle = median(values)
    deviations = [abs(value - middle) for value in values]
    mean = math.fsum(deviations) / len(deviations)
    return middle, max(1.4826 * median(deviations), 1.2533 * mean, abs(middle) * 1e-3, 1e-9)
