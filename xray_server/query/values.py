"""Checking and converting the values of a question: JSON with limits, and the kinds of the schema's own fields."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from xray.exceptions import QueryError
from xray.ids import is_id
from xray_server.documents import Kind
from xray_server.query.fields import Named
from xray_server.query.operators import hint_for, show

MAX_DEPTH = 20
MAX_CONDITIONS = 200
MAX_LIST = 1000
MAX_VALUES = 10_000
MAX_STRING = 10_000

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]{1,9})?)?([Zz]|[+-][0-9]{2}:?[0-9]{2})\Z"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME_HINT = "Write 2026-11-01T00:00:00Z, 2026-11-01 (midnight UTC), or whole milliseconds since 1970."


class Allowance:
    """What one question may still hold; shared by all of its parts."""

    def __init__(self) -> None:
        self._conditions = MAX_CONDITIONS
        self._values = MAX_VALUES

    def condition(self, path: str) -> None:
        """Count one condition.

        Raises:
            QueryError: It is one too many.
        """
        self._conditions -= 1
        if self._conditions < 0:
            raise QueryError(f"A question has at most {MAX_CONDITIONS} conditions.", code="too_large", path=path)

    def value(self, path: str) -> None:
        """Count one value, or one part of a value.

        Raises:
            QueryError: It is one too many.
        """
        self._values -= 1
        if self._values < 0:
            raise QueryError(f"A question has at most {MAX_VALUES} values.", code="too_large", path=path)


def check_depth(depth: int, path: str) -> None:
    """Hold nesting to the limit.

    Raises:
        QueryError: It is too deep.
    """
    if depth > MAX_DEPTH:
        raise QueryError(f"A question is nested at most {MAX_DEPTH} deep.", code="too_large", path=path)


def check_text(text: str, path: str) -> str:
    """A string of the question, held to what recorded text can be.

    Raises:
        QueryError: It is too long, or holds what the service never stores.
    """
    if len(text) > MAX_STRING:
        raise QueryError(f"A string has at most {MAX_STRING} characters.", code="too_large", path=path)
    if "\0" in text or not _is_encodable(text):
        raise QueryError("A string holds a NUL or a lone surrogate, which recorded text never does.", path=path)
    return text


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_json(value: Any, path: str, allowance: Allowance, depth: int = 0) -> Any:
    """A JSON value of the question: a copy that nobody else holds.

    Args:
        value: Anything.
        path: Where it stands.
        allowance: What the question may still hold.
        depth: How deep it is nested already.

    Raises:
        QueryError: It is no JSON value that could have been recorded, or is too large.
    """
    check_depth(depth, path)
    allowance.value(path)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return check_text(value, path)
    if isinstance(value, int | float):
        return _check_number(value, path)
    if isinstance(value, list | tuple):
        if len(value) > MAX_LIST:
            raise QueryError(f"A list has at most {MAX_LIST} values.", code="too_large", path=path)
        return [check_json(item, f"{path}[{i}]", allowance, depth + 1) for i, item in enumerate(value)]
    if isinstance(value, dict):
        return _check_object(value, path, allowance, depth)
    raise QueryError(f"A {type(value).__name__} is no JSON value.", path=path)


def _check_object(value: dict[Any, Any], path: str, allowance: Allowance, depth: int) -> dict[str, Any]:
    copy = {}
    for key, item in value.items():
        inner = f"{path}.{show(key)}"
        if not isinstance(key, str):
            raise QueryError("The keys of an object are strings.", path=inner)
        if key.startswith("$"):
            raise QueryError(
                f"An object to compare with cannot have the operator '{show(key)}' in it.",
                path=inner,
                hint="Give the path to the inner field instead: {'metadata.a.b': {'$gt': 1}}.",
            )
        copy[check_text(key, inner)] = check_json(item, inner, allowance, depth + 1)
    return copy


def _check_number(value: float, path: str) -> float:
    if isinstance(value, int) and not INT64_MIN <= value <= INT64_MAX:
        raise QueryError("An integer is beyond 64 bits, which recorded ones never are.", path=path)
    if not math.isfinite(value):
        raise QueryError("NaN and infinities are no JSON numbers.", path=path)
    return value


def check_value(named: Named, value: Any, path: str, allowance: Allowance, *, exact: bool, depth: int) -> Any:
    """A value that a field or metric is compared with.

    Args:
        named: What it is compared with.
        value: Anything.
        path: Where it stands.
        allowance: What the question may still hold.
        exact: Whether it is compared for equality, where only a value that can occur makes sense.
        depth: How deep it is nested already.

    Returns:
        The value; for a time its milliseconds since 1970.

    Raises:
        QueryError: It is no JSON, or could never match.
    """
    value = check_json(value, path, allowance, depth)
    if value is None or named.kind == "json":
        return value
    name = show(str(named.reference))
    checked = _CHECKS[named.kind](name, value, path)
    if exact and named.kind == "id":
        return _canonical_id(name, checked, path)
    if named.words is not None and checked not in named.words:
        raise QueryError(
            f"'{name}' is never '{show(value)}'.",
            code="unknown_word",
            path=path,
            hint=hint_for(value, *named.words) or f"It is one of {', '.join(named.words)}.",
        )
    return checked


def _string(name: str, value: Any, path: str) -> Any:
    if not isinstance(value, str):
        kind = _json_type(value)
        hint = f'Write "{value}".' if kind == "number" else None
        raise QueryError(f"'{name}' is text; a {kind} never matches.", code="wrong_type", path=path, hint=hint)
    return value


def _number(name: str, value: Any, path: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise QueryError(f"'{name}' is a number; a {_json_type(value)} never matches.", code="wrong_type", path=path)
    return value


def _strings(name: str, value: Any, path: str) -> Any:
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str) for item in items):
        raise QueryError(f"'{name}' is a list of strings; anything else never matches.", code="wrong_type", path=path)
    return value


def _time(name: str, value: Any, path: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    problem = f"'{name}' is a time; a {_json_type(value)} never matches."
    if isinstance(value, str):
        milliseconds = parse_time(value)
        if milliseconds is not None:
            return milliseconds
        problem = f"'{show(value)}' is no time."
    raise QueryError(problem, code="wrong_type", path=path, hint=_TIME_HINT)


def parse_time(text: str) -> int | None:
    """Milliseconds since 1970 of ISO 8601 text with a zone, or of a date (midnight UTC); None for anything else.

    Parts of a millisecond are cut off, as they are when a time is recorded.
    """
    try:
        if _DATE.match(text):
            moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
        elif _TIME.match(text):
            moment = datetime.fromisoformat(text.upper().replace(",", "."))
        else:
            return None
    except ValueError:
        return None
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _canonical_id(name: str, value: str, path: str) -> str:
    if not is_id(value.lower()):
        hint = "The user's own id of a run is its 'key'." if name in ("id", "run_id", "pipeline.id") else None
        raise QueryError(f"'{name}' is a UUID; '{show(value)}' never matches.", code="wrong_type", path=path, hint=hint)
    return value.lower()


def _json_type(value: Any) -> str:
    for kind, name in ((bool, "boolean"), (str, "string"), (dict, "object"), (list, "list"), (int, "number")):
        if isinstance(value, kind):
            return name
    return "number"


_CHECKS: dict[Kind, Callable[[str, Any, str], Any]] = {
    "id": _string,
    "string": _string,
    "time": _time,
    "number": _number,
    "count": _number,
    "strings": _strings,
}
