"""Conditions of the query language as MongoDB filters.

The language has MongoDB's meaning, so that most of it is handed on; but the stored form is not the document that a
question is about. A filter *narrows*: it may let through too much where a condition reaches into free-form JSON, never
too little. For the schema's scalar fields, for tags and for metrics it is exact. What conditions on candidates say of
pages is in ``pages`` beside this file.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bson.datetime_ms import DatetimeMS

from xray_server.documents import Kind
from xray_server.query.ast import And, Compare, Condition, Exists, Field, In, Metric, Not, Or, Test
from xray_server.stores.encoding import is_number
from xray_server.stores.mongo import forms, ids
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
from xray_server.stores.mongo.forms import RUNS, STAGES, Form
from xray_server.stores.mongo.known import Known, place_of
from xray_server.stores.mongo.layout import ALWAYS, LISTED, Place

_TEXT: tuple[Kind, ...] = ("id", "string", "strings")
_NUMBERS: tuple[Kind, ...] = ("time", "number", "count")
_ORDER: Mapping[str, Callable[[str, str], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}


class Compiler:
    """Compiles conditions for the documents of one project.

    Args:
        known: The numbers of what the conditions name.
    """

    def __init__(self, known: Known) -> None:
        self._known = known

    def run(self, condition: Condition) -> Bounds:
        """A condition on a run, over the collection of runs."""
        return self._combine(condition, RUNS)

    def stage(self, condition: Condition) -> Bounds:
        """A condition on a stage, over the collection of stages."""
        return self._combine(condition, STAGES)

    def stage_by_run(self, condition: Condition) -> Bounds:
        """A condition on a stage's run, over the stage's copy of the run's fields; all of them must be there."""
        return self.stage(about_the_copy(condition))

    def _combine(self, condition: Condition, form: Form) -> Bounds:
        match condition:
            case And(conditions):
                return both(self._combine(part, form) for part in conditions)
            case Or(conditions):
                return either(self._combine(part, form) for part in conditions)
            case Not(inner):
                return ~self._combine(inner, form)
            case Test(Metric() as metric):
                return self._metric(metric, condition) if form is STAGES else UNKNOWN
            case Test(Field(("tags",))) if "tags" in form.places:
                return _tags(form.places["tags"].path, condition)
            case Test(Field(("metadata", key))):
                return _metadata(key, condition)
            case Test(Field() as field):
                place = place_of(field, form)
                return UNKNOWN if place is None else self._scalar(place, condition)
        return UNKNOWN

    # --- fields -------------------------------------------------------------------------------------------------

    def _scalar(self, place: Place, test: Test) -> Bounds:
        match test.operator:
            case Exists(wanted):
                return exact(self.present(place) if wanted else self.absent(place))
            case In(values):
                return self._in(place, values)
            case Compare(op, value):
                return self._compare(place, op, value)

    def one_of(self, place: Place, texts: Sequence[str]) -> Filter:
        """That a field, which is kept as a number, is one of some texts."""
        found = _one_of(place.path, [self._known.word(place, text) for text in texts])
        if place.storage != "as_name":
            return found
        named = _one_of(LISTED, [self._known.name(text) for text in texts])
        return any_of([found, all_of([{place.path: None}, named])])

    def absent(self, place: Place) -> Filter:
        """That a field has no value: a null is never stored."""
        if place.storage in ALWAYS:
            return {place.path: self._known.word(place, None)}
        if place.storage == "own_run":
            return {place.path: False}
        return FALSE if place.storage == "own_id" else {place.path: None}

    def present(self, place: Place) -> Filter:
        """That a field has a value."""
        if place.storage in ALWAYS:
            return {place.path: {"$ne": self._known.word(place, None)}}
        if place.storage == "own_run":
            return {place.path: {"$ne": False}}
        return TRUE if place.storage == "own_id" else {place.path: {"$ne": None}}

    def _in(self, place: Place, values: tuple[Any, ...]) -> Bounds:
        listed = [value for value in values if value is not None and place.kind != "time" and _fits(place.kind, value)]
        listed = [value for value in listed if _is_plain(value)]
        parts = [self._compare(place, "eq", value) for value in values if value not in listed]
        match place.storage:
            case "word" | "mostly" | "as_name" | "listed":
                parts.append(exact(self.one_of(place, listed)))
            case "own_id" | "key":
                keys = [ids.key(self._known.project, value) for value in listed]
                parts += [exact({place.path: {"$in": keys}})] if keys else []
            case "plain":
                parts += [exact({place.path: {"$in": listed}})] if listed else []
            case _:
                parts += [self._compare(place, "eq", value) for value in listed]
        return either(parts)

    def _compare(self, place: Place, op: str, value: Any) -> Bounds:
        if value is None:
            # A null equals a null, and an absent field counts as null.
            return exact(self.absent(place) if op in ("eq", "gte", "lte") else FALSE)
        if not _fits(place.kind, value):
            # Values of different types are never equal, and only values of one type are ordered.
            return exact(FALSE)
        if not _is_plain(value):
            return UNKNOWN
        match place.storage:
            case "time":
                return exact(_compare_time(place.path, op, value))
            case "word" | "mostly" | "as_name" | "listed" if op == "eq":
                return exact(self.one_of(place, [value]))
            case "word" | "mostly" | "as_name" | "listed":
                return exact(self.one_of(place, [t for t in self._known.texts(place) if _ORDER[op](t, value)]))
            case "own_id" | "key":
                return exact(ids.compare(place.path, op, value, self._known.project))
            case "id":
                return exact(ids.compare(place.path, op, value))
            case "own_run":
                of_run = all_of([{place.path: None}, ids.compare("r", op, value, self._known.project)])
                return exact(any_of([of_run, ids.compare(place.path, op, value)]))
        return exact({place.path: {f"${op}": value}})

    # --- metrics ------------------------------------------------------------------------------------------------

    def _metric(self, metric: Metric, test: Test) -> Bounds:
        path = self._known.metric(metric)
        # Such a metric may be, or hold under the key, anything. Mostly there is none, and an index serves what is left.
        odd: Filter = {"mx": self._known.metric_word(metric)} if self._known.is_odd(metric) else FALSE
        present: Filter = {path: {"$exists": True}}
        match test.operator:
            case Exists(wanted):
                if metric.key is None:
                    found = exact(any_of([present, odd, {"mn": self._known.metric_word(metric)}]))
                else:
                    found = Bounds(present, any_of([present, odd]))
                return found if wanted else ~found
            case Compare(op, None):
                if op not in ("eq", "gte", "lte"):
                    return exact(FALSE)
                absent = negated(present)
                return Bounds(all_of([absent, negated(odd)]), any_of([absent, odd]))
            case Compare(op, value) if _fits("number", value) and _is_plain(value):
                return _with_odd({path: {f"${op}": value}}, odd)
            case In(values) if None not in values and all(_fits("number", v) and _is_plain(v) for v in values):
                return _with_odd({path: {"$in": list(values)}} if values else FALSE, odd)
            case In(values):
                return either(self._metric(metric, Test(metric, Compare("eq", value))) for value in values)
        return UNKNOWN


def about_the_copy(condition: Condition) -> Condition:
    """A condition on a run as one on the copy that each stage has of its immutable fields."""
    match condition:
        case And(conditions):
            return And(tuple(map(about_the_copy, conditions)))
        case Or(conditions):
            return Or(tuple(map(about_the_copy, conditions)))
        case Not(inner):
            return Not(about_the_copy(inner))
        case Test(Field((name,)), operator):
            return Test(Field(("run_id",) if name == "id" else ("pipeline", name)), operator)
    return condition


def _one_of(path: str, values: Sequence[Any]) -> Filter:
    if not values:
        return FALSE
    return {path: values[0]} if len(values) == 1 else {path: {"$in": list(values)}}


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


def _tags(path: str, test: Test) -> Bounds:
    match test.operator:
        case Exists(wanted):
            return exact({path: {"$exists": wanted}})
        case Compare(op, None):
            return exact({path: None} if op in ("eq", "gte", "lte") else FALSE)
        case Compare(op, str() as text) if _is_plain(text):
            return exact({path: {f"${op}": text}})
        case In(values) if all(isinstance(value, str) and _is_plain(value) for value in values):
            return exact({path: {"$in": list(values)}})
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
    return Bounds(FALSE, {"tw": {"$in": words}})


def _with_odd(found: Filter, odd: Filter) -> Bounds:
    return Bounds(found, any_of([found, odd]))
