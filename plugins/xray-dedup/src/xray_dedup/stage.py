"""The stage type ``dedup``."""

from __future__ import annotations

from collections import Counter
from typing import Any

from xray.capture.call import Alignment, StageCall
from xray.metrics import Metric, MetricValue
from xray.stage_types.base import Columns, Field, StageType
from xray_dedup.similar import clusters

DEFAULT_THRESHOLD = 0.8


class DedupStage(StageType):
    """Groups near-duplicates, or keeps one of each group.

    The callable may return every candidate with its group, only the survivors (the others are the duplicates), or the
    groups as lists of candidates put together by ``cluster=``.
    """

    name = "dedup"
    meaning = "Groups candidates that are nearly the same."
    fields = (
        Field("cluster", "accessor", "The group that a candidate belongs to.", ("cluster",)),
        Field("similarity", "accessor", "How near it is to its group, 0 to 1.", ("similarity",)),
        Field("text", "accessor", "The text by which candidates are compared where no groups are given."),
        Field("threshold", "option", "Jaccard's index from which two texts are near-duplicates; 0.8 by default."),
    )
    columns = ("cluster",)
    reads_inputs = ("cluster", "text")
    metrics = (
        Metric("dedup_clusters", "clusters", "Distinct groups among the candidates that have one."),
        Metric("duplicate_ratio", "ratio", "1 - groups / candidates: what would go if one of each stayed.", bad="high"),
        Metric("largest_cluster", "candidates", "Candidates in the largest group.", bad="high"),
        Metric("duplicates_kept", "candidates", "Candidates that went on beside the first of their group.", bad="high"),
        Metric("duplicates_dropped", "candidates", "Candidates that did not go on although their group did."),
        Metric("clusters_lost", "clusters", "Groups of which nobody went on.", bad="high"),
        Metric("unclustered", "candidates", "Candidates without a group."),
    )

    def extract(self, call: StageCall) -> Columns:
        """See :class:`StageType`; who did not go out has the verdict ``failed`` and the label ``duplicate``."""
        if call.output is None:
            return Columns([])
        rows = Alignment(call.inputs, call.output)
        groups = _groups(call, rows)
        went = [place is not None for place in rows.output_of]
        columns = rows.columns(
            verdict=["passed" if out else "failed" for out in went],
            reason_label=[None if out else "duplicate" for out in went],
            score=rows.spread(_numbers(call.output.read("similarity"))),
            cluster=groups,
        )
        columns.facts |= {"came": rows.input_count, "went": len(call.output)}
        return columns

    def compute(self, columns: Columns) -> dict[str, MetricValue]:
        """See :class:`StageType`."""
        found: dict[str, MetricValue] = {
            "input_count": columns.facts.get("came"),
            "output_count": columns.facts.get("went", columns.column("verdict").count("passed")),
        }
        groups = columns.column("cluster")
        sizes = Counter(group for group in groups if group is not None)
        verdicts = columns.column("verdict")
        kept = Counter(
            group for group, verdict in zip(groups, verdicts, strict=True) if group is not None and verdict == "passed"
        )
        found["unclustered"] = len(groups) - sizes.total()
        found["dedup_clusters"] = len(sizes)
        found["largest_cluster"] = max(sizes.values(), default=0)
        found["duplicates_kept"] = kept.total() - len(kept)
        found["duplicates_dropped"] = sum(sizes[group] - count for group, count in kept.items())
        found["clusters_lost"] = len(sizes) - len(kept)
        if sizes:
            found["duplicate_ratio"] = 1 - len(sizes) / sizes.total()
        return {name: value for name, value in found.items() if value is not None}


def _groups(call: StageCall, rows: Alignment) -> list[Any]:
    """The group of each row: as the stage says, else as the candidates say that came in, else by their text."""
    said = _read("cluster", call, rows)
    if any(group is not None for group in said):
        return [None if group is None else str(group) for group in said]
    texts = [None if text is None else str(text) for text in _read("text", call, rows)]
    threshold = call.options.get("threshold")
    found = clusters(texts, DEFAULT_THRESHOLD if threshold is None else float(threshold))
    return [None if first is None else f"like {rows.ids[first]}" for first in found]


def _read(field: str, call: StageCall, rows: Alignment) -> list[Any]:
    """A field of each row as the candidate went out, else as it came in."""
    assert call.output is not None
    found = rows.spread(call.output.read(field)) or [None] * len(rows.output_of)
    came = (None if call.inputs is None else call.inputs.read(field)) or []
    return [value if value is not None or row >= len(came) else came[row] for row, value in enumerate(found)]


def _numbers(values: list[Any] | None) -> list[float | None] | None:
    if values is None:
        return None
    return [value if type(value) in (int, float) else None for value in values]
