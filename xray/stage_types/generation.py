"""The generation stage type: candidates are made, by a model or by rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from xray.capture.call import Alignment, StageCall
from xray.capture.frames import is_frame
from xray.figures import Figure, bars, present
from xray.hookspecs import hookimpl
from xray.metrics import Metric, MetricValue
from xray.stage_types.base import Columns, Field, StageType


class GenerationStage(StageType):
    """Makes new candidates: keywords, titles, rules. A return value that is no list is one candidate."""

    name = "generation"
    meaning = "Makes new candidates."
    fields = (
        Field("text", "accessor", "The text that was generated, for its length.", ("text",)),
        Field("reason", "accessor", "Why it was generated, in prose.", ("reason",)),
    )
    columns = ("length",)
    metrics = (
        Metric("generated", "candidates", "Candidates that were made.", bad="low"),
        Metric("empty", "candidates", "Candidates that are empty: no value, no text, or nothing inside.", bad="high"),
        Metric("duplicates", "candidates", "Candidates that equal an earlier one.", bad="high"),
        Metric("mean_length", "characters", "Mean length of the texts."),
    )
    takes_candidates = False
    reads_candidates = True

    def candidates_in(self, result: Any) -> Sequence[Sequence[Any]]:
        """A list is the candidates; anything else but None is one candidate."""
        if (isinstance(result, (list, tuple)) and not hasattr(result, "_fields")) or is_frame(result):
            return [result]
        return [] if result is None else [[result]]

    def extract(self, call: StageCall) -> Columns:
        """See :class:`StageType`."""
        output = call.output
        if output is None:
            return Columns([])
        texts = output.read("text") or [_row_text(value) for value in output.cores]
        return Alignment(None, output).columns(
            reason_text=output.read("reason"),
            length=[len(text) if isinstance(text, str) else None for text in texts],
        )

    def compute(self, columns: Columns) -> dict[str, MetricValue]:
        """See :class:`StageType`; candidates are equal where their JSON is."""
        data = columns.column("data")
        distinct = {msgspec.json.encode(item, order="deterministic") for item in data}
        lengths = [length for length in columns.column("length") if length is not None]
        metrics: dict[str, MetricValue] = {
            "output_count": len(columns),
            "generated": len(columns),
            "empty": sum(1 for item in data if _is_empty(item)),
            "duplicates": len(columns) - len(distinct),
        }
        if lengths:
            metrics["mean_length"] = sum(lengths) / len(lengths)
        return metrics

    def panel(self, stage: Mapping[str, Any]) -> list[Figure]:
        """How much of what was made is of use."""
        metrics = stage.get("metrics") or {}
        counts = {name: metrics[name] for name in ("generated", "duplicates", "empty") if name in metrics}
        return present([bars("Generated", counts, "candidates")])


def _row_text(value: Any) -> Any:
    """The text of a generated candidate: the candidate itself, or what a row ``("text", "why")`` begins with."""
    return value[0] if isinstance(value, list) and value else value


def _is_empty(item: Any) -> bool:
    return item is None or (isinstance(item, str) and not item.strip()) or item in ({}, [])


@hookimpl
def xray_stage_types() -> list[StageType]:
    """The generation stage type."""
    return [GenerationStage()]
