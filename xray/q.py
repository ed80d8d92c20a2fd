"""Questions without writing JSON: ``q.stage(type="filtering").metric("fail_ratio") > 0.9``.

A question *is* the JSON object that is sent, and prints as such. Each call gives a new one::

    from xray import q

    question = q.pipeline(label="films").stage(type="filtering").metric("fail_ratio") > 0.9
    question = question.candidate(reason_label="too_long", data__runtime__gte=180).sort("-$failRatio").limit(10)
    print(question)
    client.query(question)

A keyword is a field, with ``__`` for a dot, and at its end an operator: ``started_at__gte="2026-11-01"``,
``name__in=["a", "b"]``. Names that are no keywords go into a filter as the language has it: ``{"metadata.a": 1}``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Part = Literal["pipeline", "stage", "candidate"]

OPERATORS = {
    "eq": "$eq",
    "ne": "$ne",
    "gt": "$gt",
    "gte": "$gte",
    "lt": "$lt",
    "lte": "$lte",
    "in": "$in",
    "nin": "$nin",
    "exists": "$exists",
    "type": "$type",
    "regex": "$regex",
    "mod": "$mod",
    "all": "$all",
    "size": "$size",
    "elem_match": "$elemMatch",
    "not": "$not",
}
"""The word at the end of a keyword → the operator; behind a field that is named like one stands ``__eq``."""


_PLACEHOLDER = "$param"


class Question(dict[str, Any]):
    """A question, as the JSON object that is sent."""

    def __str__(self) -> str:
        return json.dumps(self, indent=2, ensure_ascii=False)

    def pipeline(self, filter: Mapping[str, Any] | None = None, /, **fields: Any) -> Question:
        """Add conditions on the run.

        Args:
            filter: As the query language has it.
            fields: A condition by keyword.
        """
        return self._with("pipeline", filter, fields)

    def stage(self, filter: Mapping[str, Any] | None = None, /, **fields: Any) -> Question:
        """Add conditions on the stage.

        Args:
            filter: As the query language has it.
            fields: A condition by keyword.
        """
        return self._with("stage", filter, fields)

    def candidate(self, filter: Mapping[str, Any] | None = None, /, **fields: Any) -> Question:
        """Add conditions that one candidate of the stage must satisfy.

        Args:
            filter: As the query language has it.
            fields: A condition by keyword.
        """
        return self._with("candidate", filter, fields)

    def metric(self, name: str) -> Term:
        """A metric of the stage, to be compared: ``question.metric("fail_ratio") > 0.9`` is a question again.

        Args:
            name: The metric, with a dot and a key for a table: ``label_share.too_long``.
        """
        return Term(self, "stage", name if name.startswith(("$", "metrics.")) else f"metrics.{name}")

    def field(self, part: Part, path: str) -> Term:
        """A field, to be compared.

        Args:
            part: ``pipeline``, ``stage`` or ``candidate``.
            path: The dotted path.
        """
        return Term(self, part, path)

    def and_stage(self, filter: Mapping[str, Any] | None = None, /, **fields: Any) -> Question:
        """Ask for runs that have such a stage too: one more condition under ``stages``.

        Args:
            filter: As the query language has it.
            fields: A condition by keyword.
        """
        return Question({**self, "stages": [*self.get("stages", []), _filter(filter, fields)]})

    def returning(self, what: Literal["stages", "runs", "candidates"]) -> Question:
        """What the answer lists."""
        return Question({**self, "return": what})

    def sort(self, *names: str) -> Question:
        """The order of the answer.

        Args:
            names: Fields and metrics; descending with a ``-`` before the name.
        """
        return Question({**self, "sort": {name.removeprefix("-"): -1 if name[:1] == "-" else 1 for name in names}})

    def fields(self, *paths: str) -> Question:
        """What each row has.

        Args:
            paths: Fields and metrics.
        """
        return Question({**self, "fields": list(paths)})

    def limit(self, rows: int) -> Question:
        """How many rows a page has."""
        return Question({**self, "limit": rows})

    def explain(self) -> Question:
        """Ask how the question is read and run, instead of asking it."""
        return Question({**self, "explain": True})

    def _with(self, part: Part, filter: Mapping[str, Any] | None, fields: Mapping[str, Any]) -> Question:
        return self._and(part, _filter(filter, fields))

    def _and(self, part: Part, condition: Mapping[str, Any]) -> Question:
        return Question({**self, part: _both(self.get(part) or {}, condition)})


@dataclass(frozen=True, eq=False, slots=True)
class Term:
    """A field or metric of a question; comparing it gives the question with that condition.

    Args:
        question: The question.
        part: Which part the condition is for.
        path: The field or metric.
    """

    question: Question
    part: Part
    path: str

    def __gt__(self, value: Any) -> Question:
        return self._is("$gt", value)

    def __ge__(self, value: Any) -> Question:
        return self._is("$gte", value)

    def __lt__(self, value: Any) -> Question:
        return self._is("$lt", value)

    def __le__(self, value: Any) -> Question:
        return self._is("$lte", value)

    def __eq__(self, value: object) -> Question:  # type: ignore[override]
        return self._is("$eq", value)

    def __ne__(self, value: object) -> Question:  # type: ignore[override]
        return self._is("$ne", value)

    def __hash__(self) -> int:
        return id(self)

    def one_of(self, *values: Any) -> Question:
        """Equal to one of the values."""
        return self._is("$in", list(values))

    def matches(self, pattern: str) -> Question:
        """A text in which the pattern, in RE2's syntax, is found."""
        return self._is("$regex", pattern)

    def exists(self, wanted: bool = True) -> Question:
        """Whether it is there."""
        return self._is("$exists", wanted)

    def _is(self, operator: str, value: Any) -> Question:
        return self.question._and(self.part, {self.path: {operator: value}})  # noqa: SLF001 - they belong together


def pipeline(filter: Mapping[str, Any] | None = None, /, **fields: Any) -> Question:
    """A question with conditions on the run; see :meth:`Question.pipeline`."""
    return Question().pipeline(filter, **fields)


def stage(filter: Mapping[str, Any] | None = None, /, **fields: Any) -> Question:
    """A question with conditions on the stage; see :meth:`Question.stage`."""
    return Question().stage(filter, **fields)


def candidate(filter: Mapping[str, Any] | None = None, /, **fields: Any) -> Question:
    """A question about candidates, which it returns; see :meth:`Question.candidate`."""
    return Question().candidate(filter, **fields).returning("candidates")


def metric(name: str) -> Term:
    """A metric of any stage, to be compared; see :meth:`Question.metric`."""
    return Question().metric(name)


def param(name: str) -> dict[str, str]:
    """Stands in a saved question for the value of a parameter: ``q.metric("fail_ratio") > q.param("threshold")``.

    Args:
        name: The parameter, which is declared where the question is saved.
    """
    return {_PLACEHOLDER: name}


def _filter(filter: Mapping[str, Any] | None, fields: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(filter or {})
    for keyword, value in fields.items():
        path, _, word = keyword.rpartition("__")
        if path and word in OPERATORS:
            condition = {path.replace("__", "."): {OPERATORS[word]: value}}
        else:
            condition = {keyword.replace("__", "."): value}
        made = _both(made, condition)
    return made


def _both(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """A filter for both conditions; on one path their operators are put together where no operator is there twice."""
    made = dict(one)
    for path, condition in other.items():
        if path not in made:
            made[path] = condition
            continue
        there = made[path]
        if not _is_operators(there) or not _is_operators(condition) or there.keys() & condition.keys():
            return {"$and": [dict(one), dict(other)]}
        made[path] = {**there, **condition}
    return made


def _is_operators(condition: Any) -> bool:
    return isinstance(condition, Mapping) and any(str(key).startswith("$") and key != _PLACEHOLDER for key in condition)
