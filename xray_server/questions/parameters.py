"""The parameters of a saved question: ``{"$param": "threshold"}`` stands where a value is to be put.

A placeholder is a whole value, never a part of a text: what is given for it cannot become a field or an operator.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from xray.exceptions import QueryError
from xray.ids import now_ms
from xray_server.query.fields import WORDS
from xray_server.query.operators import PLACEHOLDER, hint_for, show
from xray_server.query.values import MAX_DEPTH, Allowance, check_json, check_text, parse_time

MAX_PARAMETERS = 20
MAX_DESCRIPTION = 2000
"""Characters."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,59}\Z")
_AGO = re.compile(r"(\d{1,6})\s*(s|m|h|d|w)\Z")
_UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_KEYS = ("type", "default", "description")

_WORDS = tuple(dict.fromkeys(word for fields in WORDS.values() for words in fields.values() for word in words))
_TEXTS = (
    *("x", "00000000-0000-7000-8000-000000000000", "2026-11-01T00:00:00Z", *_WORDS),
    *("name", "$durationMs", "day", "stages", "runs", "candidates", "UTC", "i"),
)
SAMPLES: Mapping[str, tuple[Any, ...]] = {
    "string": _TEXTS,
    "number": (1, 0.5),
    "integer": (1,),
    "boolean": (True,),
    "time": ("2026-11-01T00:00:00Z",),
    "strings": tuple([text] for text in _TEXTS),
    "numbers": ([1], [2, 1]),
}
"""Type → values of it, of which one fits wherever any value of the type does: a question is tried with them."""

_EXPECTED = {
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "time": "a time",
    "strings": "a list of texts",
    "numbers": "a list of numbers",
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a saved question.

    Args:
        name: Its name.
        type: One of :data:`SAMPLES`.
        default: What it is where it is not given; None where it has to be given.
        description: What it means, for people.
    """

    name: str
    type: str
    default: Any = None
    description: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Its declaration as JSON."""
        given = (("type", self.type), ("default", self.default), ("description", self.description))
        return {key: value for key, value in given if value is not None}

    def value_of(self, given: Any, path: str) -> Any:
        """The value that is put into the question.

        Args:
            given: What was given for the parameter.
            path: Where it stands.

        Raises:
            QueryError: It is of another type.
        """
        value = check_json(given, path, Allowance())
        if not _is_of_type(self.type, value):
            hint = "Write 7d, 12h, or ISO 8601 with a zone: 2026-11-01T00:00:00Z." if self.type == "time" else None
            raise QueryError(
                f"The parameter '{self.name}' is {_EXPECTED[self.type]}.", code="wrong_type", path=path, hint=hint
            )
        if self.type == "time" and isinstance(value, str):
            ago = _AGO.match(value)
            return _before_now(int(ago[1]) * _UNIT_MS[ago[2]]) if ago else value
        return value


def _before_now(milliseconds: int) -> str:
    moment = dt.datetime.fromtimestamp(max(0, now_ms() - milliseconds) / 1000, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _is_of_type(type_: str, value: Any) -> bool:
    if type_ == "time":
        is_moment = isinstance(value, str) and (_AGO.match(value) is not None or parse_time(value) is not None)
        return is_moment or _is_of_type("integer", value)
    if type_ in ("strings", "numbers"):
        return isinstance(value, list) and all(_is_of_type(type_[:-1], item) for item in value)
    if type_ == "boolean":
        return isinstance(value, bool)
    if type_ == "string":
        return isinstance(value, str)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and (type_ == "number" or isinstance(value, int))


def parse_parameters(given: Any) -> dict[str, Parameter]:
    """Parse the declarations of parameters.

    Args:
        given: Name → ``{"type": …, "default": …, "description": …}``.

    Raises:
        QueryError: They are not of that form; ``path`` says where.
    """
    if not isinstance(given, dict):
        raise QueryError(
            "'parameters' is an object.", path="parameters", hint='Write {"threshold": {"type": "number"}}.'
        )
    if len(given) > MAX_PARAMETERS:
        raise QueryError(f"A question has at most {MAX_PARAMETERS} parameters.", code="too_large", path="parameters")
    return {name: _parse(name, declared) for name, declared in given.items()}


def _parse(name: Any, declared: Any) -> Parameter:
    path = f"parameters.{show(name)}"
    if not isinstance(name, str) or not _NAME.match(name):
        raise QueryError(
            f"A parameter cannot have the name '{show(name)}'.", path=path, hint="Use letters, digits and '_'."
        )
    if not isinstance(declared, dict):
        raise QueryError("A parameter is declared by an object.", path=path, hint='Write {"type": "number"}.')
    for key in declared:
        if key not in _KEYS:
            hint = hint_for(key, *_KEYS) if isinstance(key, str) else None
            raise QueryError(
                f"A parameter has no '{show(key)}'.",
                code="unknown_key",
                path=f"{path}.{show(key)}",
                hint=hint or f"It has {', '.join(_KEYS)}.",
            )
    type_ = declared.get("type")
    if not isinstance(type_, str) or type_ not in SAMPLES:
        hint = hint_for(type_, *SAMPLES) if isinstance(type_, str) else None
        raise QueryError(
            f"There is no type '{show(type_)}'." if type_ is not None else "A parameter has a type.",
            path=f"{path}.type",
            hint=hint or f"There are {', '.join(SAMPLES)}.",
        )
    parameter = Parameter(name, type_, declared.get("default"), parse_description(declared, path))
    if parameter.default is not None:
        parameter.value_of(parameter.default, f"{path}.default")
    return parameter


def parse_description(given: Mapping[str, Any], path: str = "") -> str | None:
    """The ``description`` of a question or a parameter.

    Args:
        given: What has it, or has it not.
        path: Where that stands.

    Raises:
        QueryError: It is no text, or too long.
    """
    text, path = given.get("description"), f"{path}.description".lstrip(".")
    if text is None:
        return None
    if not isinstance(text, str) or len(text) > MAX_DESCRIPTION:
        raise QueryError(f"A description is text of at most {MAX_DESCRIPTION} characters.", path=path)
    return check_text(text, path)


_CONDITIONS = ("pipeline", "stage", "candidate")
_OF_NAMES = ("unknown_field", "unknown_metric", "unknown_operator", "unknown_key")
"""Errors which in a condition are about what stands before the value."""


@dataclass(frozen=True, slots=True)
class Place:
    """A placeholder in a question.

    Args:
        path: Where it stands, as errors say it.
        name: The parameter that it stands for.
    """

    path: str
    name: str

    def is_concerned_by(self, error: QueryError) -> bool:
        """Whether an error may be about the value that stands there, and not about the question around it."""
        if error.path is None or (error.code in _OF_NAMES and self.path.startswith(_CONDITIONS)):
            return False
        return _is_within(error.path, self.path) or _is_within(self.path, error.path)


def _is_within(path: str, outer: str) -> bool:
    return path == outer or path.startswith((f"{outer}.", f"{outer}["))


def places(asked: Any, path: str = "", depth: int = 0) -> Iterator[Place]:
    """Every placeholder of a question.

    Args:
        asked: The question, or a part of it.
        path: Where that stands.
        depth: How deep it is nested.

    Raises:
        QueryError: A placeholder is malformed, or the question is nested too deep.
    """
    if depth > 2 * MAX_DEPTH:
        raise QueryError(f"A question is nested at most {MAX_DEPTH} deep.", code="too_large", path=path)
    if isinstance(asked, dict):
        if PLACEHOLDER in asked:
            yield _place(asked, path)
            return
        for key, value in asked.items():
            yield from places(value, f"{path}.{show(key)}".lstrip("."), depth + 1)
    elif isinstance(asked, list):
        for number, item in enumerate(asked):
            yield from places(item, f"{path}[{number}]", depth + 1)


def _place(asked: Mapping[Any, Any], path: str) -> Place:
    name = asked[PLACEHOLDER]
    if len(asked) != 1 or not isinstance(name, str):
        raise QueryError(
            f"A placeholder is an object with '{PLACEHOLDER}' and the name of a parameter.",
            path=path,
            hint=f'Write {{"{PLACEHOLDER}": "threshold"}}.',
        )
    return Place(path, name)


def filled(asked: Any, values: Mapping[str, Any]) -> Any:
    """A question with values in place of its placeholders.

    Args:
        asked: The question, or a part of it.
        values: Parameter → its value; each placeholder has one.
    """
    if isinstance(asked, dict):
        if PLACEHOLDER in asked:
            return values[asked[PLACEHOLDER]]
        return {key: filled(value, values) for key, value in asked.items()}
    return [filled(item, values) for item in asked] if isinstance(asked, list) else asked
