"""How the value of each kind of field is checked and brought into the form that the stores keep."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import math
import re
import uuid
from collections.abc import Callable, Collection, Sequence
from typing import Any, get_args

from xray.exceptions import SchemaError, did_you_mean
from xray.ids import is_id
from xray.metrics import DeclaredKind, Metric
from xray.schema import COMPLETENESS, STATUSES, FieldKind
from xray_server.json_rules import INT64_MAX, INT64_MIN, clean, clean_text

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_FIRST_MS = (dt.datetime.min.replace(tzinfo=dt.UTC) - _EPOCH) // dt.timedelta(milliseconds=1)
_LAST_MS = (dt.datetime.max.replace(tzinfo=dt.UTC) - _EPOCH) // dt.timedelta(milliseconds=1)
_TIME_HINT = "Write 2026-11-01T00:00:00Z, another offset, or whole milliseconds since 1970."
_METRIC_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
_ERROR_FIELDS = ("type", "message", "code", "stage")

Check = Callable[[Any, str], Any]


def _bad(message: str, path: str, hint: str | None = None) -> SchemaError:
    return SchemaError(message, code="bad_value", path=path, hint=hint)


def check_id(value: Any, path: str) -> str:
    """A UUID in canonical form.

    Raises:
        SchemaError: It is something else.
    """
    if is_id(value):
        return str(value)
    hint = "Use a UUID of version 7; your own id of a run goes into run.key."
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            hint = f"Write it as '{uuid.UUID(value)}'."
    raise _bad("An id is a UUID in its canonical form: 36 characters, lower case.", path, hint)


def check_time(value: Any, path: str) -> int:
    """A moment in milliseconds since 1970, UTC.

    Raises:
        SchemaError: It is no moment, has no zone, or lies outside the years 1 to 9999.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if not _FIRST_MS <= value <= _LAST_MS:
            raise _bad("The time is not within the years 1 to 9999.", path, "Give milliseconds since 1970.")
        return value
    if isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(value)
        except ValueError:
            raise _bad("The time is not of ISO 8601.", path, _TIME_HINT) from None
    if not isinstance(value, dt.datetime):
        raise _bad("A time is ISO 8601 text or whole milliseconds since 1970.", path, _TIME_HINT)
    if value.tzinfo is None:
        raise _bad("The time has no zone.", path, _TIME_HINT)
    return (value - _EPOCH) // dt.timedelta(milliseconds=1)


def _string(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise _bad("The value is a string.", path)
    return clean_text(value)


def _number(value: Any, path: str) -> int | float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not (math.isfinite(value) if isinstance(value, float) else INT64_MIN <= value <= INT64_MAX):
        raise _bad("The value is a finite number.", path)
    found: int | float = value
    return found


def _count(value: Any, path: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= INT64_MAX:
        raise _bad("The value is an integer, 0 or more.", path)
    return value


def _strings(value: Any, path: str) -> list[str]:
    if not isinstance(value, list):
        raise _bad("The value is a list of strings.", path)
    return sorted({_string(item, f"{path}[{position}]") for position, item in enumerate(value)})


def _object(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _bad("The value is an object.", path)
    found: dict[str, Any] = clean(value)
    return found


def _json(value: Any, _path: str) -> Any:
    return clean(value)


def _error(value: Any, path: str) -> dict[str, Any]:
    found = _object(value, path)
    for name, part in found.items():
        if name not in _ERROR_FIELDS:
            raise SchemaError(
                f"An error has no field '{name}'.",
                code="unknown_field",
                path=f"{path}.{name}",
                hint=did_you_mean(name, _ERROR_FIELDS) or f"It has {', '.join(_ERROR_FIELDS)}.",
            )
        if part is not None and not isinstance(part, str):
            raise _bad("The value is a string.", f"{path}.{name}")
    return found


def _one_of(words: Sequence[str]) -> Check:
    def check(value: Any, path: str) -> str:
        if isinstance(value, str) and value in words:
            return value
        raise _bad(
            f"The value is one of {', '.join(words)}.",
            path,
            did_you_mean(value, words) if isinstance(value, str) else None,
        )

    return check


CHECKS: dict[FieldKind, Check] = {
    "string": _string,
    "id": check_id,
    "time": check_time,
    "number": _number,
    "count": _count,
    "strings": _strings,
    "object": _object,
    "json": _json,
    "error": _error,
    "status": _one_of(STATUSES),
    "completeness": _one_of(COMPLETENESS),
}
"""Kind of field → what checks its value, given the value and its path. Candidates have checks of their own."""


def check_metrics(metrics: Any, path: str) -> dict[str, Any]:
    """Metrics that a sender computed; a number that is not finite is no value and is left out.

    Raises:
        SchemaError: It is no object, or a name is not of the form that metrics have.
    """
    if not isinstance(metrics, dict):
        raise _bad("The value is an object.", path)
    checked: dict[str, Any] = {}
    for name, value in metrics.items():
        if type(name) is not str or not _is_metric_name(name):
            raise _bad("A metric's name is of the form [a-z][a-z0-9_]*.", f"{path}.{name}")
        kind = type(value)
        if (kind is int and INT64_MIN <= value <= INT64_MAX) or (kind is float and math.isfinite(value)):
            checked[name] = value
        elif isinstance(value, dict):
            entries = value if _have_values(value.values()) else {k: v for k, v in value.items() if _has_value(v)}
            checked[name] = clean(entries)
        elif _has_value(value):
            checked[name] = clean(value)
    return checked


@functools.lru_cache(maxsize=4096)
def _is_metric_name(name: str) -> bool:
    return _METRIC_NAME.match(name) is not None


def _have_values(entries: Collection[Any]) -> bool:
    """Whether all entries have a value, where a glance shows it."""
    kinds = set(map(type, entries))
    return kinds <= {int} or (kinds <= {int, float} and math.isfinite(math.fsum(entries)))


def _has_value(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


def check_capture(capture: dict[str, Any], path: str) -> None:
    """Hold what is counted in ``capture`` to being counts.

    Raises:
        SchemaError: ``seen`` or ``kept`` is none, or ``mode`` is no string.
    """
    for name, check in (("seen", _count), ("kept", _count), ("mode", _string)):
        if capture.get(name) is not None:
            check(capture[name], f"{path}.{name}")


def check_declarations(declarations: Any, path: str) -> list[dict[str, Any]]:
    """Declarations of metrics, brought into the form of ``Metric.as_dict``.

    Raises:
        SchemaError: They are no list of objects with a name, or a word in them is none of those that may stand there.
    """
    if not isinstance(declarations, list):
        raise _bad("The value is a list of objects.", path)
    checked = []
    for position, declaration in enumerate(declarations):
        place = f"{path}[{position}]"
        if not isinstance(declaration, dict):
            raise _bad("A declaration is an object.", place)
        name, kind, bad = declaration.get("name"), declaration.get("kind", "number"), declaration.get("bad")
        if not isinstance(name, str) or not _METRIC_NAME.match(name):
            raise _bad("A metric's name is of the form [a-z][a-z0-9_]*.", f"{place}.name")
        if kind not in get_args(DeclaredKind):
            raise _bad("A declaration's kind is number, table, data or column.", f"{place}.kind")
        if bad not in (None, "high", "low"):
            raise _bad("The bad direction is high, low or null.", f"{place}.bad")
        unit, meaning = (_string(declaration.get(text, ""), f"{place}.{text}") for text in ("unit", "meaning"))
        metric = Metric(name, unit, meaning, kind, declaration.get("indexed", True) is True, bad)
        checked.append(metric.as_dict())
    return checked
