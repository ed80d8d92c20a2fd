"""The rows of an answer as a table: which columns, what stands in them, where they lead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from xray.metrics import COMMON_METRICS, Metric
from xray_server.dashboard import filters, links
from xray_server.query.fields import FIELDS, MetricCatalog, Part, camel

_COLUMNS: dict[str, tuple[str, ...]] = {
    "runs": ("label", "key", "status", "version", "started_at", "duration_ms", "stage_count"),
    "stages": ("name", "type", "pipeline.label", "status", "started_at", "duration_ms"),
    "candidates": ("candidate_id", "verdict", "reason_label", "score", "stage_name", "label"),
}
_PARTS: dict[str, Part] = {"runs": "pipeline", "stages": "stage", "candidates": "candidate"}
_FIGURES = ("input_count", "output_count", "fail_ratio")
_TIMES = frozenset({"started_at", "finished_at", "candidates_removed_at"})
_MAX_COLUMNS = 16
_HEADS = {
    "started_at": "started", "finished_at": "ended", "duration_ms": "took", "pipeline.label": "pipeline",
    "stage_count": "stages", "candidate_id": "candidate", "reason_label": "reason", "input_count": "in",
    "output_count": "out", "fail_ratio": "fail ratio", "stage_name": "stage",
}  # fmt: skip


class Table:
    """The table of an answer.

    Args:
        returns: ``runs``, ``stages`` or ``candidates``.
        rows: The answer's rows.
        question: The question; what it names beside the usual columns is shown too.
        catalog: The metrics that it may name.
    """

    def __init__(
        self, returns: str, rows: Sequence[Mapping[str, Any]], question: Mapping[str, Any], catalog: MetricCatalog
    ) -> None:
        self.returns = returns
        self._catalog = catalog
        self.paths = self._paths(question)
        self.heads = [(_HEADS.get(_bare(path), _bare(path)), self._is_number(path)) for path in self.paths]
        self.rows = [[self._cell(row, path) for path in self.paths] for row in rows]

    def _paths(self, question: Mapping[str, Any]) -> list[str]:
        fields = question.get("fields")
        chosen = list(fields) if isinstance(fields, list | dict) and fields else None
        if chosen is None:
            chosen = [*_COLUMNS[self.returns], *(f"metrics.{name}" for name in _FIGURES if self.returns == "stages")]
            chosen += self._named(question)
        always = {"runs": "label", "stages": "name", "candidates": "candidate_id"}[self.returns]
        spelled = [self._spelled(str(path)) for path in chosen]
        return list(dict.fromkeys([always, *spelled]))[:_MAX_COLUMNS]

    def _named(self, question: Mapping[str, Any]) -> list[str]:
        """What the question asks about, or sorts by, and a row has."""
        conditions = [question.get(_PARTS[self.returns]), question.get("sort")]
        if self.returns == "stages":
            conditions += question.get("stages") or ()
        words = [word for each in conditions for word in _words(each)]
        fields = FIELDS[_PARTS[self.returns]]
        not_shown = ("id", "_id", "run_id", "metrics")
        return [
            word
            for word in words
            if (word.startswith("$") and self.returns == "stages" and self._metric(word))
            or (word.split(".")[0] in fields and word.split(".")[0] not in not_shown)
            or (self.returns == "candidates" and word.split(".")[0] in self._catalog.candidate_columns)
        ]

    def _metric(self, word: str) -> Metric | None:
        name = word.removeprefix("metrics.").removeprefix("$").partition(".")[0]
        return self._catalog.declaration(name) if word.startswith(("$", "metrics.")) else None

    def _spelled(self, path: str) -> str:
        """One spelling for each metric, so that none stands twice."""
        if path == "duration_ms" or self.returns != "stages":
            return path
        metric = self._metric(path)
        if metric is None:
            return path
        _, dot, key = path.removeprefix("metrics.").partition(".")
        name = "duration_ms" if metric.name == "duration_ms" else f"metrics.{metric.name}"
        return name + (f".{key}" if dot else "")

    def _is_number(self, path: str) -> bool:
        return path in ("duration_ms", "score", "rank", "stage_count", "seq", "rank_before") or (
            self._metric(path) is not None
        )

    def _cell(self, row: Mapping[str, Any], path: str) -> Markup:
        value = _value(row, path)
        metric = self._metric(path) or (COMMON_METRICS[0] if path == "duration_ms" else None)
        if metric is not None:
            # The shares of a table are shares, whatever unit the table has.
            return filters.number(value, "ms" if path == "duration_ms" else metric.unit)
        if path in _TIMES:
            return filters.time(value)
        shown = filters.shown(value, 80)
        if path == "status":
            shown = filters.status(value)
        elif path == "verdict":
            shown = filters.verdict(value)
        elif path == "reason_label":
            shown = filters.label(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            shown = filters.number(value)
        address = self._address(row, path)
        return Markup('<a href="{}">{}</a>').format(address, shown) if address else shown

    def _address(self, row: Mapping[str, Any], path: str) -> str | None:
        if self.returns == "runs":
            return links.run_url(row["id"]) if path == "label" else None
        if self.returns == "stages":
            if path == "name":
                return links.stage_url(row["id"])
            run_id = row.get("run_id")
            return links.run_url(run_id) if path == "pipeline.label" and run_id else None
        if path == "candidate_id" and row.get("run_id"):
            return links.candidate_url(row["run_id"], row["candidate_id"])
        if path == "stage_name" and row.get("stage_id"):
            return links.stage_url(row["stage_id"])
        return links.run_url(row["run_id"]) if path == "label" and row.get("run_id") else None


def groups_table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[tuple[str, bool]], list[list[Markup]]]:
    """The groups of an aggregation as heads (text, whether its cells are numbers) and rows of cells."""
    groups = list(dict.fromkeys(name for row in rows for name in row["group"]))
    values = list(dict.fromkeys(name for row in rows for name in row["values"]))
    has_bucket = any(row.get("bucket") is not None for row in rows)
    heads = [("time", False)] * has_bucket + [(name, False) for name in groups] + [(name, True) for name in values]
    cells = [
        [filters.time(row.get("bucket"))] * has_bucket
        + [filters.shown(row["group"].get(name), 80) for name in groups]
        + [filters.number(row["values"].get(name)) for name in values]
        for row in rows
    ]
    return heads, cells


def _bare(path: str) -> str:
    return path.removeprefix("metrics.")


def _words(condition: Any) -> Iterable[str]:
    """The fields and metrics that a condition names, in their order."""
    if isinstance(condition, list):
        for each in condition:
            yield from _words(each)
    elif isinstance(condition, dict):
        for word, inner in condition.items():
            if word in ("$and", "$or", "$nor"):
                yield from _words(inner)
            elif isinstance(word, str):
                yield word


def _value(row: Mapping[str, Any], path: str) -> Any:
    """What a row has under a path; keys may have dots themselves."""
    value: Any = row
    rest = path
    while rest:
        if isinstance(value, list) and re.match(r"\d+(\.|$)", rest):
            head, _, rest = rest.partition(".")
            value = value[int(head)] if int(head) < len(value) else None
            continue
        if not isinstance(value, Mapping):
            return None
        if rest in value:
            return value[rest]
        head, _, rest = rest.partition(".")
        value = value.get(head)
    return value


def metric_words(metrics: Iterable[Metric]) -> list[dict[str, str]]:
    """Metrics as the editor completes them."""
    found: dict[str, dict[str, str]] = {}
    for metric in metrics:
        if metric.kind != "data":
            word = camel(metric.name) + ("." if metric.kind == "table" else "")
            found.setdefault(word, {"word": word, "what": f"{metric.meaning} ({metric.unit})".removesuffix(" ()")})
    return [found[word] for word in sorted(found)]
