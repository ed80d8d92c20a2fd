"""How well confidences say how often verdicts are right."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

BINS = 10


def calibration(judged: Iterable[tuple[float, bool]], bins: int = BINS) -> dict[str, Any] | None:
    """The expected calibration error, and the bins that it is made of.

    ECE = sum over the bins of (n_b / n) * |share of right verdicts in b - mean confidence in b|, over bins of equal
    width: bin m of M holds confidences in ((m - 1) / M, m / M], and the first one 0 too. Naeini, Cooper and Hauskrecht,
    "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015; the form with verdicts and their
    confidence is that of Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.

    Args:
        judged: For each verdict its confidence, 0 to 1, and whether it was right.
        bins: How many bins.

    Returns:
        ``error``; ``gap``, the same sum without the absolute value, positive where verdicts are surer than they are
        right; and ``bins`` that have any verdict: ``{upto, count, confidence, right}``. None where there is no verdict.
    """
    members: dict[int, list[tuple[float, bool]]] = {}
    for confidence, right in judged:
        members.setdefault(max(0, math.ceil(confidence * bins) - 1), []).append((confidence, right))
    total = sum(map(len, members.values()))
    if not total:
        return None
    error = gap = 0.0
    shown = []
    for place, pairs in sorted(members.items()):
        sure = math.fsum(confidence for confidence, _ in pairs) / len(pairs)
        share = sum(was_right for _, was_right in pairs) / len(pairs)
        error += len(pairs) / total * abs(share - sure)
        gap += len(pairs) / total * (sure - share)
        shown.append({"upto": (place + 1) / bins, "count": len(pairs), "confidence": sure, "right": share})
    return {"error": error, "gap": gap, "bins": shown}
