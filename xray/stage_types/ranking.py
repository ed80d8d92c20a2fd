"""The ranking stage type: the candidates are put in an order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xray.capture.call import Alignment, Items, StageCall
from xray.figures import Figure, histogram, present
from xray.hookspecs import hookimpl
from xray.metrics import Metric, MetricValue, kendall_tau
from xray.stage_types.base import Columns, Field, StageType
from xray.stage_types.scoring import number_or_none


class RankingStage(StageType):
    """Puts the candidates in an order; the order of the return value is the rank, from 1.

    The return value may be the candidates, ``(candidate, score)`` pairs, or a list of positions in the input.
    """

    name = "ranking"
    meaning = "Puts the candidates in an order."
    fields = (
        Field("score", "accessor", "The number that the order goes by.", ("score", 1)),
        Field("reason_text", "accessor", "Why it ranks there, in prose.", ("reason_text",)),
    )
    metrics = (
        Metric("kendall_tau", "correlation", "Kendall's tau-b between the order before and after."),
        Metric("mean_displacement", "ranks", "Mean distance between a candidate's rank before and after."),
        Metric(
            "displacement",
            "ranks",
            "Rank before minus rank after, counted in bins of whole ranks.",
            kind="data",
            indexed=False,
        ),
        Metric("top10_overlap", "ratio", "Share of the first ten after that were among the first ten before."),
        Metric("top_margin", "score", "The score of rank 1 minus the score of rank 2.", bad="low"),
    )

    def extract(self, call: StageCall) -> Columns:
        """See :class:`StageType`; a candidate that was not returned has no rank."""
        output = call.output
        if output is None:
            return Columns([])
        if call.inputs is not None and _is_positions(output, call.inputs):
            output = call.inputs.picked(output.values)
        alignment = Alignment(call.inputs, output)
        scores = output.read("score")
        return alignment.columns(
            rank=[None if place is None else place + 1 for place in alignment.output_of],
            rank_before=[row + 1 if row < alignment.input_count else None for row in range(len(alignment.output_of))],
            score=alignment.spread(None if scores is None else [number_or_none(score) for score in scores]),
            reason_text=alignment.spread(output.read("reason_text")),
        )

    def compute(self, columns: Columns) -> dict[str, MetricValue]:
        """See :class:`StageType`; correlations are over the candidates that have a rank before and after."""
        rank, before = columns.column("rank"), columns.column("rank_before")
        both = [(b, a) for b, a in zip(before, rank, strict=True) if b is not None and a is not None]
        ranked = sum(1 for a in rank if a is not None)
        metrics: dict[str, MetricValue] = {
            "input_count": sum(1 for b in before if b is not None),
            "output_count": ranked,
        }
        if both:
            metrics["mean_displacement"] = sum(abs(b - a) for b, a in both) / len(both)
            metrics["displacement"] = _counted([b - a for b, a in both])
            top_after = [b for b, a in both if a <= 10]
            if top_after:
                metrics["top10_overlap"] = sum(1 for b in top_after if b <= 10) / min(10, ranked)
            tau = kendall_tau([b for b, _ in both], [a for _, a in both])
            if tau is not None:
                metrics["kendall_tau"] = tau
        score_of = dict(zip(rank, columns.column("score"), strict=True))
        first, second = score_of.get(1), score_of.get(2)
        if first is not None and second is not None:
            metrics["top_margin"] = first - second
        return metrics

    def panel(self, stage: Mapping[str, Any]) -> list[Figure]:
        """How far the candidates moved: those right of 0 came up."""
        moved = (stage.get("metrics") or {}).get("displacement")
        return present([histogram("Ranks gained", moved, "ranks", {"no change": 0})])


def _counted(moves: Sequence[int], bins: int = 20) -> dict[str, list[float] | list[int]]:
    """Whole numbers counted in at most so many bins, whose edges lie between whole numbers."""
    low, high = min(moves), max(moves)
    width = -(-(high - low + 1) // bins)
    counts = [0] * -(-(high - low + 1) // width)
    for move in moves:
        counts[(move - low) // width] += 1
    return {"edges": [low - 0.5 + width * place for place in range(len(counts) + 1)], "counts": counts}


def _is_positions(output: Items, inputs: Items) -> bool:
    if output.are_records:
        return False
    values: list[Any] = output.values
    return (
        0 < len(values) <= len(inputs)
        and all(type(value) is int and 0 <= value < len(inputs) for value in values)
        and len(set(values)) == len(values)
        and not all(type(value) is int for value in inputs.values)
    )


@hookimpl
def xray_stage_types() -> list[StageType]:
    """The ranking stage type."""
    return [RankingStage()]
