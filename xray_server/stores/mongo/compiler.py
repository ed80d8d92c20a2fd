"""Conditions of the query language as MongoDB filters.

The language has MongoDB's meaning, so that most of it is handed on; but the stored form is not the document that a
question is about. A filter *narrows*: it may let through too much where a condition reaches into free-form JSON or
candidates, never too little. For the schema's scalar fields, for tags and for metrics it is exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bson.datetime_ms import DatetimeMS

from xray_server.documents import CANDIDATE_FIELDS, PIPELINE_FIELDS, RUN_FIELDS, STAGE_FIELDS, Kind
from xray_server.query.ast import And, Compare, Condition, Exists, Field, In, Metric, Not, Or, Test
from xray_server.stores.encoding import is_number
from xray_server.stores.mongo import forms, zones
from xray_server.stores.mongo.filters import (
    FALSE,
    TRUE,
    UNKNOWN,
    Bounds,
    Filter,
    all_of,
    any_of,
    both,
    either,
    exact,
    negated,
)

_TEXT: tuple[Kind, ...] = ("id", "string", "strings")
_NUMBERS: tuple[Kind, ...] = ("time", "number", "count")


class Compiler:
    """Compiles conditions for the documents of one project.

    Args:
        project: The project.
    """

    def __init__(self, project: str) -> None:
        self._project = project

    def run(self, condition: Condition) -> Bounds:
        """A condition on a run, over the collection of runs."""
        return self._combine(condition, RUN_FIELDS)

    def stage(self, condition: Condition) -> Bounds:
        """A condition on a stage, over the collection of stages."""
        return self._combine(condition, STAGE_FIELDS)

    def stage_by_run(self, condition: Condition) -> Bounds:
        """A condition on a stage's run, over the stage's copy of the run's fields; all of them must be there."""
        return self.stage(_about_the_copy(condition))

    def _combine(self, condition: Condition, fields: Mapping[str, Kind]) -> Bounds:
        match condition:
            case And(conditions):
                return both(self._combine(part, fields) for part in conditions)
            case Or(conditions):
                return either(self._combine(part, fields) for part in conditions)
            case Not(inner):
                return ~self._combine(inner, fields)
            case Test(Metric() as metric):
                return _metric(metric, condition)
            case Test(Field(("id",))):
                return self._id(condition)
            case Test(Field(("tags",))) if fields.get("tags") == "strings":
                return _tags(condition)
            case Test(Field(("metadata", key))):
                return _metadata(key, condition)
            case Test(Field(path)):
                kind = kind_of(path, fields)
                return UNKNOWN if kind is None else _scalar(".".join(path), kind, condition)
        return UNKNOWN

    def _id(self, test: Test) -> Bounds:
        """A test on the document's own id, which lies in ``_id`` behind the project."""
        match test.operator:
            case Compare("eq", str() as value) if _is_plain(value):
                return exact({"_id": forms.key(self._project, value)})
            case In(values) if all(isinstance(value, str) and _is_plain(value) for value in values):
                return exact({"_id": {"$in": [forms.key(self._project, value) for value in values]}})
        return _scalar("_id.i", "id", test)


def _about_the_copy(condition: Condition) -> Condition:
    match condition:
        case And(conditions):
            return And(tuple(map(_about_the_copy, conditions)))
        case Or(conditions):
            return Or(tuple(map(_about_the_copy, conditions)))
        case Not(inner):
            return Not(_about_the_copy(inner))
        case Test(Field((name,)), operator):
            return Test(Field(("run_id",) if name == "id" else ("pipeline", name)), operator)
    return condition


def kind_of(path: tuple[str, ...], fields: Mapping[str, Kind]) -> Kind | None:
    """The kind of a scalar field's values, or None where the field is no scalar or lies in free-form JSON."""
    match path:
        case (name,) if fields.get(name) not in (None, "json", "strings"):
            return fields[name]
        case ("pipeline", name) if "pipeline" in fields:
            return PIPELINE_FIELDS.get(name)
    return None


# --- fields -----------------------------------------------------------------------------------------------------


def _scalar(path: str, kind: Kind, test: Test) -> Bounds:
    match test.operator:
        case Exists(wanted):
            return exact({path: {"$exists": wanted}})
        case In(values):
            return _in(path, kind, values)
        case Compare(op, value):
            return _compare(path, kind, op, value)


def _in(path: str, kind: Kind, values: tuple[Any, ...]) -> Bounds:
    listed = [value for value in values if value is not None and kind != "time" and _fits(kind, value)]
    listed = [value for value in listed if _is_plain(value)]
    parts = [_compare(path, kind, "eq", value) for value in values if value not in listed]
    if listed:
        parts.append(exact({path: {"$in": listed}}))
    return either(parts)


def _compare(path: str, kind: Kind, op: str, value: Any) -> Bounds:
    if value is None:
        # A null equals a null, and an absent field counts as null; a null itself is never stored.
        return exact({path: None} if op in ("eq", "gte", "lte") else FALSE)
    if not _fits(kind, value):
        # Values of different types are never equal, and only values of one type are ordered.
        return exact(FALSE)
    if not _is_plain(value):
        return UNKNOWN
    if kind == "time":
        return exact(_compare_time(path, op, value))
    return exact({path: {f"${op}": value}})


def _compare_time(path: str, op: str, milliseconds: float) -> Filter:
    """A date has whole milliseconds; what lies between two of them is compared with the one below."""
    whole = math.floor(milliseconds)
    if whole != milliseconds:
        if op == "eq":
            return FALSE
        op = "gt" if op in ("gt", "gte") else "lte"
    return {path: {f"${op}": DatetimeMS(whole)}}


def _fits(kind: Kind, value: Any) -> bool:
    if kind in _TEXT:
        return isinstance(value, str)
    return kind in _NUMBERS and isinstance(value, int | float) and not isinstance(value, bool)


def _is_plain(value: Any) -> bool:
    """Whether BSON takes a text or a number as it is; for others the evaluator decides."""
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value)
    return is_number(value)


def _tags(test: Test) -> Bounds:
    match test.operator:
        case Exists(wanted):
            return exact({"tags": {"$exists": wanted}})
        case Compare(op, None):
            return exact({"tags": None} if op in ("eq", "gte", "lte") else FALSE)
        case Compare(op, str() as text) if _is_plain(text):
            return exact({"tags": {f"${op}": text}})
        case In(values) if all(isinstance(value, str) and _is_plain(value) for value in values):
            return exact({"tags": {"$in": list(values)}})
    return UNKNOWN


def _metadata(key: str, test: Test) -> Bounds:
    """Narrow by a text in metadata: only by those that are kept as words."""
    match test.operator:
        case Compare("eq", str() as text):
            texts: tuple[Any, ...] = (text,)
        case In(values) if values:
            texts = values
        case _:
            return UNKNOWN
    words = [forms.word(key, text) if isinstance(text, str) else None for text in texts]
    if None in words or not all(map(_is_plain, words)):
        return UNKNOWN
    return Bounds(FALSE, {"words": {"$in": words}})


# --- metrics ----------------------------------------------------------------------------------------------------


def _metric(metric: Metric, test: Test) -> Bounds:
    path = forms.metric_path(metric.name, metric.key)
    if not _is_plain(path):
        return UNKNOWN
    # Such a metric may be, or hold under the key, anything.
    odd: Filter = {"odd_metrics": metric.name}
    match test.operator:
        case Exists(wanted):
            present = _present(metric, path)
            if metric.key is None:
                found = exact(any_of([present, odd, {"null_metrics": metric.name}]))
            else:
                found = Bounds(present, any_of([present, odd]))
            return found if wanted else ~found
        case Compare(op, None):
            if op not in ("eq", "gte", "lte"):
                return exact(FALSE)
            absent = negated(_present(metric, path))
            return Bounds(all_of([absent, negated(odd)]), any_of([absent, odd]))
        case Compare(op, value) if _fits("number", value) and _is_plain(value):
            return _with_odd({path: {f"${op}": value}}, odd)
        case In(values) if None not in values and all(_fits("number", v) and _is_plain(v) for v in values):
            return _with_odd({path: {"$in": list(values)}} if values else FALSE, odd)
        case In(values):
            return either(_metric(metric, Test(metric, Compare("eq", value))) for value in values)
    return UNKNOWN


def _present(metric: Metric, path: str) -> Filter:
    """That there is a number at the metric's place, or, for a whole metric, a table."""
    number: Filter = {path: {"$exists": True}}
    if metric.key is not None:
        return number
    return any_of([number, {f"metrics.t.{forms.escaped(metric.name)}": {"$exists": True}}])


def _with_odd(found: Filter, odd: Filter) -> Bounds:
    return Bounds(found, any_of([found, odd]))


# --- candidates -------------------------------------------------------------------------------------------------


def page_filter(candidate: Condition) -> Filter:
    """What a page must satisfy to hold a candidate that satisfies the condition, over the collection of pages."""
    match candidate:
        case And(conditions):
            return all_of(map(page_filter, conditions))
        case Or(conditions):
            return any_of(map(page_filter, conditions))
        case Test(Field((("candidate_id" | "reason_label") as name,)), Compare("eq", str() as text)):
            return _mentions(name, [text])
        case Test(Field((("candidate_id" | "reason_label") as name,)), In(values)) if all(
            isinstance(value, str) for value in values
        ):
            return _mentions(name, list(values))
        case Test(Field((first, *below))) if below or first not in CANDIDATE_FIELDS:
            return zones.condition(candidate)
    return TRUE


def _mentions(name: str, texts: list[str]) -> Filter:
    if not texts:
        return FALSE
    if not all(map(_is_plain, texts)):
        return TRUE
    return {"ids" if name == "candidate_id" else "reason_labels": {"$in": texts}}
