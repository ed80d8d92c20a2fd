"""The measures of a ranking, by ir-measures (which asks NIST's trec_eval)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# Named here, and not at the first measurement, because importing it takes longer than a measurement may.
import pytrec_eval  # noqa: F401
from ir_measures import RR, R, iter_calc, nDCG

MEASURES = {"ndcg_at_10": nDCG @ 10, "reciprocal_rank": RR, "recall_at_10": R @ 10, "recall_at_100": R @ 100}
"""Metric → measure: nDCG with the grades as gains and a discount of log2(rank + 1); the others take grade 1 and up."""


def measured(ranking: Sequence[str], grades: Mapping[str, int]) -> dict[str, float]:
    """The measures of one ranking.

    Args:
        ranking: Ids, the best first; one that occurs again counts where it occurs first.
        grades: Id → grade of everything that was judged; what is not there is not relevant.

    Returns:
        Metric → value; nothing where no grade is above 0.
    """
    if not any(grade > 0 for grade in grades.values()):
        return {}
    # trec_eval orders by score, and equal scores by id: distinct ones keep the order that is.
    scores = {item: float(-rank) for rank, item in reversed(list(enumerate(ranking)))}
    names = {str(measure): name for name, measure in MEASURES.items()}
    values = dict.fromkeys(MEASURES, 0.0)
    for found in iter_calc(list(MEASURES.values()), {"q": dict(grades)}, {"q": scores}):
        values[names[str(found.measure)]] = float(found.value)
    return values
