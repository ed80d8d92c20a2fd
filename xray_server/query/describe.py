"""Questions in plain English, for people who want to know how theirs was understood."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

from xray_server.documents import RUN_FIELDS, STAGE_FIELDS
from xray_server.query import ast
from xray_server.query.fields import camel
from xray_server.query.figures import Aggregation
from xray_server.query.sorting import DEFAULT_SORT

_WORDS = {"eq": "is", "gt": "is above", "gte": "is at least", "lt": "is below", "lte": "is at most"}
_TIME_WORDS = {"eq": "is", "gt": "is after", "gte": "is at or after", "lt": "is before", "lte": "is at or before"}
_NOT = {
    "is": "is not",
    "is one of": "is none of",
    "is there": "is not there",
}
_TIMES = {name for kinds in (RUN_FIELDS, STAGE_FIELDS) for name, kind in kinds.items() if kind == "time"}
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_LONGEST = 80
_TYPE_WORDS = {
    "double": "a floating-point number",
    "string": "text",
    "object": "an object",
    "array": "a list",
    "bool": "true or false",
    "null": "null",
    "int": "an integer",
    "long": "a long integer",
}


def describe(question: ast.Question) -> str:
    """A question in one or a few English sentences.

    Args:
        question: The parsed question.
    """
    order = _order(question)
    sentences = [f"{_what(question)}, {order}, {question.limit} at a time."]
    if question.stages:
        listed = "; ".join(f"({n}) {describe_condition(each)}" for n, each in enumerate(question.stages, 1))
        sentences.append(f"Of these runs each has, for every one of these, a stage of which it holds: {listed}.")
    if question.after is not None:
        sentences.append("The answer goes on after an earlier page.")
    return " ".join(sentences)


def describe_figures(aggregation: Aggregation) -> str:
    """An aggregation in an English sentence.

    Args:
        aggregation: The parsed aggregation.
    """
    figures = ", ".join(
        value.operator.removeprefix("$") + (f" of {name_of(value.reference)}" if value.reference else "")
        for value in aggregation.values
    )
    by = [name for name, _ in aggregation.group_by]
    if aggregation.bucket is not None:
        by.append(f"{aggregation.bucket.unit} ({aggregation.bucket.timezone})")
    what = _what(aggregation.conditions)
    return f"{figures} over {what[:1].lower()}{what[1:]}" + (f", by {', '.join(by)}" if by else "") + "."


def _what(question: ast.Question) -> str:
    of_stage = [] if question.stage == ast.EVERYTHING else [describe_condition(question.stage)]
    has_candidate = (
        "with a candidate whose {}" if question.candidate not in (None, ast.EVERYTHING) else "with any candidate"
    )
    candidate = "" if question.candidate is None else has_candidate.format(describe_condition(question.candidate))
    run = "" if question.pipeline == ast.EVERYTHING else describe_condition(question.pipeline)
    if question.returns == "candidates":
        which = (
            "" if question.candidate in (None, ast.EVERYTHING) else f" whose {describe_condition(question.candidate)}"
        )
        text = f"Candidates{which}, of stages" + (f" whose {of_stage[0]}" if of_stage else "")
        return text + (f", of runs whose {run}" if run else "")
    if question.returns == "runs":
        parts = ["Runs" + (f" whose {run}" if run else "")]
        if of_stage or candidate:
            parts.append(
                "with a stage" + (f" whose {of_stage[0]}" if of_stage else "") + (f" {candidate}" if candidate else "")
            )
        return " ".join(parts)
    text = "Stages" + (f" whose {of_stage[0]}" if of_stage else "")
    if question.stages and not of_stage and question.candidate is None:
        text += " for which one of the conditions below holds"
    text += f" {candidate}" if candidate else ""
    return text + (f", of runs whose {run}" if run else "")


def _order(question: ast.Question) -> str:
    if question.sort in ((), DEFAULT_SORT):
        return "the latest first"
    keys = [key for key in question.sort if key.reference != ast.Field(("id",))] or list(question.sort)
    return "ordered by " + ", then ".join(
        f"{name_of(key.reference)} ({'highest' if key.descending else 'lowest'} first)" for key in keys
    )


def describe_condition(condition: ast.Condition) -> str:
    """A condition in English, to stand behind "whose".

    Args:
        condition: The condition.
    """
    return _condition(condition, outermost=True)


def _condition(condition: ast.Condition, *, outermost: bool = False) -> str:
    match condition:
        case ast.And(()):
            return "anything holds"
        case ast.Or(()):
            return "nothing holds"
        case ast.And(conditions) | ast.Or(conditions):
            word = " and " if isinstance(condition, ast.And) else " or "
            text = word.join(_condition(inner) for inner in conditions)
            return text if outermost or len(conditions) == 1 else f"({text})"
        case ast.Not(ast.Test(reference, operator)):
            verb, rest = _operator(reference, operator)
            negated = _NOT.get(verb)
            if negated:
                return " ".join(part for part in (name_of(reference), negated, rest) if part)
            return f"not ({' '.join(part for part in (name_of(reference), verb, rest) if part)})"
        case ast.Not(ast.Or(conditions)):
            return f"none of these: {'; '.join(_condition(inner, outermost=True) for inner in conditions)}"
        case ast.Not(inner):
            return f"not ({_condition(inner, outermost=True)})"
        case ast.Test(reference, operator):
            verb, rest = _operator(reference, operator)
            return " ".join(part for part in (name_of(reference), verb, rest) if part)


def _operator(reference: ast.Reference, operator: ast.Operator) -> tuple[str, str]:
    is_time = isinstance(reference, ast.Field) and reference.path[-1:] != () and reference.path[-1] in _TIMES
    match operator:
        case ast.Compare("eq", None):
            return "is", "null or missing"
        case ast.Compare(op, value):
            return (_TIME_WORDS if is_time else _WORDS)[op], _value(value, is_time=is_time)
        case ast.In(values):
            shown = ", ".join(_value(value, is_time=is_time) for value in values[:10])
            return "is one of", shown + (f" and {len(values) - 10} more" if len(values) > 10 else "") or "no values"
        case ast.Regex(pattern, flags):
            return "has text that matches", f"/{_short(pattern)}/{flags}"
        case ast.Mod(divisor, remainder):
            return "leaves", f"{remainder} when divided by {divisor}"
        case ast.Size(size):
            return "is a list of", f"{size} element{'' if size == 1 else 's'}"
        case ast.Type(names):
            return "is", " or ".join(_TYPE_WORDS[name] for name in _TYPE_WORDS if name in names)
        case ast.ElemMatch(inner, of):
            subject = "whose" if of == "objects" else "for which"
            return "is a list with an element", f"{subject} {_condition(inner, outermost=True)}"
        case ast.Exists(wanted):
            return "is there" if wanted else "is not there", ""


def name_of(reference: ast.Reference) -> str:
    """A field or metric as a question writes it; the element of a list is ``it``."""
    if isinstance(reference, ast.Metric):
        return camel(reference.name) + (f".{reference.key}" if reference.key is not None else "")
    return str(reference) or "it"


def _value(value: Any, *, is_time: bool) -> str:
    if is_time and isinstance(value, int):
        try:
            return (_EPOCH + dt.timedelta(milliseconds=value)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        except OverflowError:
            return f"{value} ms since 1970"
    return _short(json.dumps(value, ensure_ascii=False))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
