"""The documents that a store keeps, and how two partial documents of the same thing become one.

A *document* is a plain dict of JSON values whose time fields are integers: milliseconds since 1970, UTC. A partial
document has only the fields that an event brought. Merging is commutative, associative and idempotent, so that
events may arrive in any order and more than once; :func:`merge_into` is the one place that says how.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from xray.schema import COMPLETENESS, STATUSES

Document = dict[str, Any]

Kind = Literal["id", "string", "time", "number", "count", "strings", "json"]

PIPELINE_FIELDS: dict[str, Kind] = {
    "id": "id",
    "key": "string",
    "label": "string",
    "version": "string",
    "environment": "string",
    "started_at": "time",
}
"""A run's immutable fields; a stage has them again under ``pipeline``."""

RUN_FIELDS: dict[str, Kind] = {
    **PIPELINE_FIELDS,
    "repository": "string",
    "finished_at": "time",
    "duration_ms": "number",
    "status": "string",
    "error": "json",
    "input": "json",
    "output": "json",
    "metadata": "json",
    "tags": "strings",
    "stage_count": "count",
    "completeness": "string",
    "sample_rate": "number",
    "analysis": "json",
}

STAGE_FIELDS: dict[str, Kind] = {
    "id": "id",
    "run_id": "id",
    "parent_id": "id",
    "order": "count",
    "path": "string",
    "name": "string",
    "type": "string",
    "started_at": "time",
    "duration_ms": "number",
    "status": "string",
    "error": "json",
    "input": "json",
    "output": "json",
    "metadata": "json",
    "facts": "json",
    "llm": "json",
    "reasoning": "string",
    "capture": "json",
    "trace": "json",
    "metrics": "json",
    "metrics_over": "count",  # how many candidates the metrics cover
    "candidates_removed_at": "time",  # by retention; never in what a sender says
    "pipeline": "json",  # PIPELINE_FIELDS
}

CANDIDATE_FIELDS: dict[str, Kind] = {
    "candidate_id": "string",
    "seq": "count",  # the place among the stage's candidates
    "verdict": "string",
    "reason_label": "string",
    "reason_text": "string",
    "score": "number",
    "scores": "json",
    "checks": "json",
    "rank": "count",
    "rank_before": "count",
    "data": "json",
    "output": "json",
}

_RANKED: dict[str, tuple[str, ...]] = {"status": STATUSES, "completeness": COMPLETENESS}
_MERGED_BY_KEY = frozenset({"metadata", "facts", "llm", "pipeline", "capture"})
_ID = frozenset({"id"})


def merge_into(document: Document, partial: Mapping[str, Any]) -> Document:
    """Merge a partial document into a document of the same id, in place.

    A field that is set stays set. ``status`` and ``completeness`` take the later word of their list; ``metadata``,
    ``facts``, ``llm``, ``pipeline`` and ``capture`` merge key by key; ``tags`` as a set; ``analysis`` by who made it,
    as :func:`analysis_of` says; ``metrics`` that cover more candidates replace those that cover fewer. Where two events
    disagree on anything else, the greater number stays, or else the value whose JSON is greater: arbitrary, but the
    same in whichever order they came.

    Args:
        document: What is there; owned by the caller, changed in place.
        partial: What came; not changed.

    Returns:
        ``document``.
    """
    if document.keys() <= _ID and _is_whole(partial):
        document.update(partial)
        return document
    before = document.get("metrics_over", -1), partial.get("metrics_over", -1)
    for name, value in partial.items():
        if value is None or name in ("metrics", "metrics_over"):
            continue
        current = document.get(name)
        if name == "analysis":
            document[name] = _merge_analyses(value if current is None else current, value)
        elif current is None:
            document[name] = value
        elif name in _RANKED:
            document[name] = max(current, value, key=_RANKED[name].index)
        elif name in _MERGED_BY_KEY:
            document[name] = _merge_keys(current, value)
        elif name == "tags":
            document[name] = sorted({*current, *value})
        else:
            document[name] = _greater(current, value)
    if partial.get("metrics") is not None:
        if document.get("metrics") is None or before[1] > before[0]:
            document["metrics"] = partial["metrics"]
        elif before[1] == before[0]:
            document["metrics"] = _merge_keys(document["metrics"], partial["metrics"])
        document["metrics_over"] = max(before)
    return document


def _is_whole(partial: Mapping[str, Any]) -> bool:
    """Whether merging into nothing gives the partial document as it is, which is what becomes of most of them."""
    has_metrics = ("metrics" in partial) + ("metrics_over" in partial)
    return has_metrics != 1 and "analysis" not in partial and None not in partial.values()


ANALYSTS = ("statistics", "model")
"""Who analyzes runs; the later ones' word counts for more where two say something at the same time."""

_HEAD = ("analyzed_at", "confidence", "faulty_stage", "reason", "suggestion")


def analysis_of(by: Mapping[str, Mapping[str, Any]]) -> Document:
    """A run's ``analysis``: what each analyst said last, side by side, and in front what was said last of all.

    Of two analyses by the same analyst the one with the greater ``analyzed_at`` stays, so that they may come in any
    order and again. What questions name (``analysis.faulty_stage``) is the last word, and ``by`` says whose it is.

    Args:
        by: Analyst → what it said, with ``analyzed_at`` in ISO 8601, UTC, milliseconds.
    """
    said = {name: dict(by[name]) for name in ANALYSTS if name in by}
    last = max(said, key=lambda name: (str(said[name].get("analyzed_at") or ""), ANALYSTS.index(name)))
    return {"by": last, **{name: said[last][name] for name in _HEAD if said[last].get(name) is not None}, **said}


def _merge_analyses(current: Any, value: Any) -> Any:
    if not (_is_analysis(current) or _is_analysis(value)):
        return _greater(current, value)
    both = [each for each in (current, value) if _is_analysis(each)]
    by = {}
    for name in ANALYSTS:
        said = [each[name] for each in both if name in each]
        if said:
            by[name] = max(said, key=lambda each: (str(each.get("analyzed_at") or ""), _rank(each)))
    return analysis_of(by)


def _is_analysis(value: Any) -> bool:
    named = [value[name] for name in ANALYSTS if name in value] if isinstance(value, dict) else []
    return bool(named) and all(isinstance(each, dict) for each in named)


def _merge_keys(current: Mapping[str, Any], value: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(current)
    for key, new in value.items():
        old = merged.get(key)
        merged[key] = new if old is None else old if new is None else _greater(old, new)
    return dict(sorted(merged.items()))


def _greater(current: Any, value: Any) -> Any:
    if type(current) is type(value) and current == value:
        return current
    return max(current, value, key=_rank)


def _rank(value: Any) -> tuple[bool, float, bytes]:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number, value if is_number else 0, msgspec.json.encode(value, order="deterministic")
