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


def merge_into(document: Document, partial: Mapping[str, Any]) -> Document:
    """Merge a partial document into a document of the same id, in place.

    A field that is set stays set. ``status`` and ``completeness`` take the later word of their list; ``metadata``,
    ``facts``, ``llm``, ``pipeline`` and ``capture`` merge key by key; ``tags`` as a set; ``metrics`` that cover more
    candidates replace those that cover fewer. Where two events disagree on anything else, the greater number stays,
    or else the value whose JSON is greater: arbitrary, but the same in whichever order they came.

    Args:
        document: What is there; owned by the caller, changed in place.
        partial: What came; not changed.

    Returns:
        ``document``.
    """
    before = document.get("metrics_over", -1), partial.get("metrics_over", -1)
    for name, value in partial.items():
        if value is None or name in ("metrics", "metrics_over"):
            continue
        current = document.get(name)
        if current is None:
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
