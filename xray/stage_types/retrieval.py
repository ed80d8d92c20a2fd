"""The retrieval stage type: candidates are fetched from somewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from xray.capture.call import Alignment, StageCall
from xray.figures import Figure, bars, present
from xray.hookspecs import hookimpl
from xray.metrics import Metric, MetricValue, describe_scores
from xray.stage_types.base import Columns, Field, StageType
from xray.stage_types.scoring import SCORE_METRICS, number_or_none, score_figures


class RetrievalStage(StageType):
    """Fetches the candidates that the rest of the run works on; their order is the rank, from 1."""

    name = "retrieval"
    meaning = "Fetches candidates from a source."
    fields = (
        Field("score", "accessor", "The score that the source gave.", ("score", 1)),
        Field("source", "accessor", "Where the candidate came from.", ("source",)),
        Field("requested", "option", "How many were asked for: a number, or the name of the argument that says it."),
    )
    columns = ("source",)
    metrics = (
        Metric("returned", "candidates", "Candidates that the source returned.", bad="low"),
        Metric("requested", "candidates", "Candidates that were asked for."),
        Metric("duplicates", "candidates", "Candidates whose id came before in the same answer.", bad="high"),
        Metric("sources", "candidates", "Candidates by source.", kind="table"),
        *SCORE_METRICS,
    )
    takes_candidates = False

    def extract(self, call: StageCall) -> Columns:
        """See :class:`StageType`."""
        output = call.output
        if output is None:
            return Columns([])
        alignment = Alignment(None, output)
        requested = call.option("requested")
        if type(requested) is int:
            alignment.facts["requested"] = requested
        scores = output.read("score")
        sources = output.read("source")
        return alignment.columns(
            rank=list(range(1, len(output) + 1)),
            score=None if scores is None else [number_or_none(score) for score in scores],
            source=None if sources is None else [None if source is None else str(source) for source in sources],
        )

    def compute(self, columns: Columns) -> dict[str, MetricValue]:
        """See :class:`StageType`; score metrics only where the source gave a score at all."""
        metrics: dict[str, MetricValue] = {
            "output_count": len(columns),
            "returned": len(columns),
            "duplicates": len(columns) - len(set(columns.candidate_id)),
        }
        if "requested" in columns.facts:
            metrics["requested"] = columns.facts["requested"]
        sources = Counter(source for source in columns.column("source") if source is not None)
        if sources:
            metrics["sources"] = dict(sources.most_common())
        if any(score is not None for score in columns.column("score")):
            metrics |= describe_scores(columns.column("score"))
        return metrics

    def panel(self, stage: Mapping[str, Any]) -> list[Figure]:
        """Where the candidates came from, how many of those asked for, and their scores."""
        metrics = stage.get("metrics") or {}
        counts = {name: metrics[name] for name in ("requested", "returned", "duplicates") if name in metrics}
        sources = bars("Sources", metrics.get("sources") or {}, "candidates")
        return present([bars("Asked for and returned", counts, "candidates"), sources]) + score_figures(metrics)


@hookimpl
def xray_stage_types() -> list[StageType]:
    """The retrieval stage type."""
    return [RetrievalStage()]
