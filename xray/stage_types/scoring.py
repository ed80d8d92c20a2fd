"""The scoring stage type: each candidate gets a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xray.capture.call import Alignment, Items, StageCall
from xray.capture.plain import marker
from xray.figures import Figure, histogram, present
from xray.hookspecs import hookimpl
from xray.metrics import Metric, MetricValue, describe_scores
from xray.stage_types.base import Columns, Field, StageType

SCORE_METRICS = (
    Metric("score", "score", "min, max, mean, std, p10, p50, p90 and p99 of the scores.", kind="table"),
    Metric("histogram", "candidates", "The scores counted in bins of equal width.", kind="data", indexed=False),
    Metric("nulls", "candidates", "Candidates without a score.", bad="high"),
    Metric("ties", "candidates", "Candidates whose score equals an earlier one's.", bad="high"),
    Metric("top_margin", "score", "The highest score minus the second highest.", bad="low"),
)
"""The metrics of every type whose candidates have scores; see ``xray.metrics.describe_scores``."""


class ScoringStage(StageType):
    """Gives each candidate a score.

    The return value may be the candidates with a score field, a list of numbers over the inputs, ``(candidate,
    score)`` pairs, or a dict from candidate id to score.
    """

    name = "scoring"
    meaning = "Gives each candidate a score."
    fields = (
        Field("score", "accessor", "The candidate's score.", ("score", 1)),
        Field("reason_text", "accessor", "Why it scored so, in prose.", ("reason_text",)),
    )
    metrics = SCORE_METRICS

    def candidates_in(self, result: Any) -> Sequence[Sequence[Any]]:
        """The list itself; of a dict its items."""
        if isinstance(result, dict):
            return [list(result.items())]
        return super().candidates_in(result)

    def extract(self, call: StageCall) -> Columns:
        """See :class:`StageType`."""
        output = call.output
        if output is None:
            return Columns([])
        if call.inputs is not None and _is_numbers(output, call.inputs):
            return Alignment(call.inputs, call.inputs).columns(score=[number_or_none(v) for v in output.values])
        scores = output.read("score")
        alignment = Alignment(call.inputs, output)
        not_returned = alignment.output_of.count(None)
        if not_returned:
            alignment.facts["not_returned"] = not_returned
        return alignment.columns(
            score=alignment.spread(None if scores is None else [number_or_none(score) for score in scores]),
            reason_text=alignment.spread(output.read("reason_text")),
        )

    def compute(self, columns: Columns) -> dict[str, MetricValue]:
        """See :class:`StageType`; a candidate that was not returned has no score and counts among the nulls."""
        scores = columns.column("score")
        described = describe_scores(scores)
        return {
            "input_count": len(columns) - columns.facts.get("unknown_outputs", 0),
            "output_count": len(columns) - columns.facts.get("not_returned", 0),
            **described,
        }

    def panel(self, stage: Mapping[str, Any]) -> list[Figure]:
        """How the scores are distributed."""
        return score_figures(stage.get("metrics") or {})


def score_figures(metrics: Mapping[str, Any]) -> list[Figure]:
    """The histogram of the scores, with their quantiles.

    Args:
        metrics: The metrics of a stage whose candidates have scores.
    """
    quantiles = {name: value for name, value in (metrics.get("score") or {}).items() if name in ("p10", "p50", "p90")}
    return present([histogram("Scores", metrics.get("histogram"), "score", quantiles)])


def number_or_none(value: Any) -> float | int | None:
    """A score as a number: booleans and texts are none."""
    return value if type(value) in (int, float) else None


_NOT_FINITE = tuple(marker(text) for text in ("nan", "inf", "-inf"))
"""What a record has in place of a number that is none."""


def _is_numbers(output: Items, inputs: Items) -> bool:
    if output.are_records:
        return False
    return (
        len(output) == len(inputs) > 0
        and all(value is None or type(value) in (int, float) or value in _NOT_FINITE for value in output.values)
        and not all(type(value) in (int, float) for value in inputs.values)
    )


@hookimpl
def xray_stage_types() -> list[StageType]:
    """The scoring stage type."""
    return [ScoringStage()]
