"""The stage type ``judged``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xray.capture.call import Alignment, StageCall
from xray.metrics import Metric, MetricValue
from xray.stage_types.base import Columns, Field, StageType
from xray_ir_metrics.measures import measured

MAX_GRADES = 1000
"""Grades of relevant items that neither came in nor went out that a stage carries, the highest first."""


class JudgedStage(StageType):
    """Fetches, filters or orders items of which some are known to be relevant.

    A candidate that did not go out has the verdict ``failed``, and the label ``relevant_lost`` where it was relevant.
    """

    name = "judged"
    meaning = "Fetches, filters or orders items of which some are known to be relevant."
    fields = (
        Field("relevant", "option", "Judged or clicked ids, id to grade, or the argument that holds them."),
        Field(
            "relevance", "accessor", "The grade of a candidate: 0, 1, 2 …, or whether it was clicked.", ("relevance",)
        ),
        Field("score", "accessor", "The number that the order goes by.", ("score",)),
    )
    columns = ("relevance",)
    reads_inputs = ("relevance",)
    metrics = (
        Metric("ndcg_at_10", "ratio", "nDCG of the first ten that went out.", bad="low"),
        Metric("reciprocal_rank", "ratio", "1 / rank of the first relevant one; its mean over runs is MRR.", bad="low"),
        Metric("recall_at_10", "ratio", "Share of all relevant items among the first ten.", bad="low"),
        Metric("recall_at_100", "ratio", "Share of all relevant items among the first hundred.", bad="low"),
        Metric("relevant_known", "items", "Items that are known to be relevant."),
        Metric("relevant_in", "candidates", "Relevant ones that came in."),
        Metric("relevant_out", "candidates", "Relevant ones that went out.", bad="low"),
        Metric("recall_loss", "ratio", "Share of all relevant items that this stage lost.", bad="high"),
        Metric("first_relevant_rank", "rank", "The rank of the first relevant one.", bad="high"),
    )

    def extract(self, call: StageCall) -> Columns:
        """See :class:`StageType`; the order of what went out is the ranking."""
        if call.output is None:
            return Columns([])
        rows = Alignment(call.inputs, call.output)
        judged = _judgements(call.option("relevant"))
        read = _read_grades(call, rows)
        grades = [judged.get(key, read[row]) for row, key in enumerate(rows.ids)]
        went = [place is not None for place in rows.output_of]
        scores = call.output.read("score")
        columns = rows.columns(
            verdict=["passed" if out else "failed" for out in went],
            reason_label=[
                "relevant_lost" if not out and grade else None for out, grade in zip(went, grades, strict=True)
            ],
            rank=[None if place is None else place + 1 for place in rows.output_of],
            rank_before=[row + 1 if row < rows.input_count else None for row in range(len(rows.ids))],
            score=rows.spread(None if scores is None else [s if type(s) in (int, float) else None for s in scores]),
            relevance=grades,
        )
        known = set(rows.ids)
        elsewhere = sorted((grade for key, grade in judged.items() if grade > 0 and key not in known), reverse=True)
        columns.facts |= {"has_inputs": call.inputs is not None, "relevant_elsewhere": elsewhere[:MAX_GRADES]}
        if len(elsewhere) > MAX_GRADES:
            columns.facts["relevant_left_out"] = len(elsewhere) - MAX_GRADES
        return columns

    def compute(self, columns: Columns) -> dict[str, MetricValue]:
        """See :class:`StageType`.

        ``recall_loss`` = (relevant before - relevant after) / all known, where before a stage that takes no candidates
        all known ones count: over the stages of a run the losses add up to 1 - recall at its end.
        """
        ranks, before = columns.column("rank"), columns.column("rank_before")
        grades = [grade if type(grade) is int else 0 for grade in columns.column("relevance")]
        elsewhere = [grade for grade in columns.facts.get("relevant_elsewhere") or () if type(grade) is int]
        rows = range(len(columns))
        came = [row for row in rows if before[row] is not None]
        went = sorted((row for row in rows if ranks[row] is not None), key=lambda row: ranks[row])
        relevant = [row for row in rows if grades[row] > 0]
        known = len(relevant) + len(elsewhere)
        out = sum(grades[row] > 0 for row in went)
        found: dict[str, MetricValue] = {
            "input_count": len(came),
            "output_count": len(went),
            "relevant_known": known,
            "relevant_in": sum(grades[row] > 0 for row in came),
            "relevant_out": out,
        }
        if not known:
            return found
        reachable = found["relevant_in"] if columns.facts.get("has_inputs", bool(came)) else known
        found["recall_loss"] = (reachable - out) / known
        first = next((place for place, row in enumerate(went, 1) if grades[row] > 0), None)
        if first is not None:
            found["first_relevant_rank"] = first
        # Rows, not ids: an id may occur twice. What was judged and is not here still counts for the ideal order.
        judged = {str(row): grades[row] for row in relevant}
        judged |= {f"elsewhere {number}": grade for number, grade in enumerate(elsewhere)}
        return found | measured([str(row) for row in went], judged)


def _judgements(given: Any) -> dict[str, int]:
    if isinstance(given, Mapping):
        return {str(key): _grade(grade) or 0 for key, grade in given.items()}
    if isinstance(given, (list, tuple, set, frozenset)):
        return {str(key): 1 for key in given}
    return {}


def _read_grades(call: StageCall, rows: Alignment) -> list[int | None]:
    assert call.output is not None
    went = rows.spread(call.output.read("relevance")) or [None] * len(rows.ids)
    came = (None if call.inputs is None else call.inputs.read("relevance")) or []
    return [_grade(value if value is not None or row >= len(came) else came[row]) for row, value in enumerate(went)]


def _grade(value: Any) -> int | None:
    """A grade as trec_eval takes it: a whole number, 0 or more; what was clicked has 1."""
    if isinstance(value, (bool, int)):
        return max(0, int(value))
    if isinstance(value, float) and value == value:  # noqa: PLR0124 - NaN
        return max(0, round(min(value, 1e6)))
    return None
