"""The selection stage type: one candidate, or a few, are picked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xray.capture.accessors import core
from xray.capture.call import Alignment, Items, StageCall
from xray.capture.frames import is_frame
from xray.figures import Figure, bars, present
from xray.hookspecs import hookimpl
from xray.metrics import Metric, MetricValue
from xray.stage_types.base import Columns, Field, StageType
from xray.stage_types.scoring import number_or_none


class SelectionStage(StageType):
    """Picks one candidate, or a few, out of those that come in.

    The return value may be the candidate, ``(candidate, score)``, a list of candidates, a position in the input, or a
    candidate's id.
    """

    name = "selection"
    meaning = "Picks one candidate, or a few."
    fields = (
        Field("score", "accessor", "The number that the choice goes by.", ("score",)),
        Field("reason_text", "accessor", "Why a candidate was picked, in prose.", ("reason_text",)),
    )
    reads_inputs = ("score",)
    metrics = (
        Metric("selected", "candidates", "Candidates that were picked.", bad="low"),
        Metric("selected_ids", "candidates", "The ids of those that were picked.", kind="data", indexed=False),
        Metric("margin", "score", "The lowest score that was picked minus the highest that was not.", bad="low"),
    )

    def candidates_in(self, result: Any) -> Sequence[Sequence[Any]]:
        """A list is what was picked; anything else but None is the one that was picked."""
        if (
            type(result) is tuple
            and len(result) == 2
            and core(result) is not result
            and type(result[1]) in (int, float)
        ):
            return [[result]]  # one candidate with its score
        if (isinstance(result, (list, tuple)) and not hasattr(result, "_fields")) or is_frame(result):
            return [result]
        return [] if result is None else [[result]]

    def extract(self, call: StageCall) -> Columns:
        """See :class:`StageType`."""
        output, inputs = call.output, call.inputs
        if output is None:
            return Columns([])
        if inputs is not None and _are_positions(output, inputs):
            output = inputs.picked(output.values)
        alignment = Alignment(inputs, output)
        scores = None if inputs is None else inputs.read("score")
        if scores is not None and len(scores) == alignment.input_count:
            scores = scores + [None] * (len(alignment.output_of) - len(scores))
        else:
            scores = alignment.spread(output.read("score"))
        return alignment.columns(
            verdict=[None if place is None else "selected" for place in alignment.output_of],
            score=None if scores is None else [number_or_none(score) for score in scores],
            reason_text=alignment.spread(output.read("reason_text")),
        )

    def compute(self, columns: Columns) -> dict[str, MetricValue]:
        """See :class:`StageType`; ``margin`` only where both sides have scores."""
        verdicts, scores = columns.column("verdict"), columns.column("score")
        selected = [place for place, verdict in enumerate(verdicts) if verdict == "selected"]
        metrics: dict[str, MetricValue] = {
            "input_count": len(columns) - columns.facts.get("unknown_outputs", 0),
            "output_count": len(selected),
            "selected": len(selected),
            "selected_ids": [columns.candidate_id[place] for place in selected[:100]],
        }
        picked = [scores[place] for place in selected if scores[place] is not None]
        left = [
            score
            for verdict, score in zip(verdicts, scores, strict=True)
            if verdict != "selected" and score is not None
        ]
        if picked and left:
            metrics["margin"] = min(picked) - max(left)
        return metrics

    def panel(self, stage: Mapping[str, Any]) -> list[Figure]:
        """How many were picked, and how many were not."""
        metrics = stage.get("metrics") or {}
        if "selected" not in metrics:
            return []
        left = max(0, (metrics.get("input_count") or 0) - metrics["selected"])
        return present([bars("Picked", {"selected": metrics["selected"], "not selected": left}, "candidates")])


def _are_positions(output: Items, inputs: Items) -> bool:
    if output.are_records:
        return False
    values: list[Any] = output.values
    return (
        0 < len(values) <= len(inputs)
        and all(type(value) is int and 0 <= value < len(inputs) for value in values)
        and not all(type(value) is int for value in inputs.values)
        and not set(output.ids) & set(inputs.ids)
    )


@hookimpl
def xray_stage_types() -> list[StageType]:
    """The selection stage type."""
    return [SelectionStage()]
