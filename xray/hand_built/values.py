"""How a value that was given by hand is checked and becomes what the wire takes."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from xray.capture.errors import describe_error
from xray.capture.redact import Redactor
from xray.capture.snapshot import marker, restore, snapshot, to_json
from xray.exceptions import SchemaError, did_you_mean
from xray.ids import is_id
from xray.schema import STATUSES, FieldKind

Moment = dt.datetime | str
"""A time: a datetime or ISO 8601 text; one without a zone is taken for UTC."""

Failure = BaseException | Mapping[str, Any] | str
"""What went wrong: an exception, ``{"type": …, "message": …, "code": …, "stage": …}``, or a message."""

Markers = list[dict[str, Any]]

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_ERROR_FIELDS = ("type", "message", "code", "stage")
_REDACTED_FIELDS = frozenset({"input", "output", "metadata", "llm", "reasoning", "error"})
"""The fields in which a user's own values lie."""


def bad(message: str, path: str, hint: str | None = None) -> SchemaError:
    """The error about one value."""
    return SchemaError(message, code="bad_value", path=path, hint=hint)


def plain_of(value: Any) -> Any:
    """A copy of a value as dicts, lists, texts, numbers, bytes and datetimes."""
    try:
        return restore(snapshot(value))
    except Exception as error:
        # What a user passes may be anything; what cannot be kept is said, as everywhere else.
        return marker(f"{type(value).__qualname__}, unreadable: {type(error).__name__}")


def json_of(value: Any, path: str = "", markers: Markers | None = None) -> Any:
    """A copy of a value as JSON.

    Args:
        value: Anything.
        path: Its path in the stage, for the markers.
        markers: A list that takes what had to be replaced, or None.
    """
    return to_json(plain_of(value), markers, path)


def text_of(value: Any, path: str) -> str:
    """A text; a whole number or a UUID is one too, because ids are often such.

    Raises:
        SchemaError: It is something else.
    """
    found = json_of(value)
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    if not isinstance(found, str):
        raise bad("The value is a string.", path)
    return found


def number_of(value: Any, path: str) -> int | float:
    """A finite number.

    Raises:
        SchemaError: It is something else.
    """
    found = plain_of(value)
    if not isinstance(found, (int, float)) or isinstance(found, bool) or not math.isfinite(found):
        raise bad("The value is a finite number.", path)
    return found


def count_of(value: Any, path: str) -> int:
    """A whole number, 0 or more.

    Raises:
        SchemaError: It is something else.
    """
    found = plain_of(value)
    if not isinstance(found, int) or isinstance(found, bool) or found < 0:
        raise bad("The value is an integer, 0 or more.", path)
    return found


def word_of(value: Any, known: Iterable[str], path: str, what: str) -> str:
    """One of some words.

    Args:
        value: What was given; an enumeration's member counts as its value.
        known: The words.
        path: Where it was given.
        what: What the words are, with its article, for the message.

    Raises:
        SchemaError: It is none of them; the hint names the nearest.
    """
    found = plain_of(value)
    if isinstance(found, str) and found in known:
        return found
    near = did_you_mean(found, known) if isinstance(found, str) else None
    raise bad(f"{what} is one of {', '.join(known)}, not {found!r:.100}.", path, near)


def as_ms(value: Any, path: str) -> int:
    """A time in milliseconds since 1970, UTC.

    Raises:
        SchemaError: It is no datetime and no ISO 8601 text.
    """
    if isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(value)
        except ValueError:
            raise bad("The time is not of ISO 8601.", path, "Write 2026-11-01T00:00:00Z.") from None
    if not isinstance(value, dt.datetime):
        raise bad(
            "A time is a datetime or ISO 8601 text.", path, "Of seconds since 1970: datetime.fromtimestamp(s, UTC)."
        )
    moment = value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value
    return (moment - _EPOCH) // dt.timedelta(milliseconds=1)


def _id(value: Any, path: str) -> str:
    found = str(value)
    if not is_id(found):
        raise bad("An id is a UUID.", path, "Your own id of a run goes into key=.")
    return found


def _object(value: Any, path: str) -> dict[str, Any]:
    found = json_of(value)
    if not isinstance(found, dict):
        raise bad("The value is a mapping.", path)
    return found


def _strings(value: Any, path: str) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise bad("The value is a list of strings.", path)
    return sorted({text_of(item, f"{path}[{place}]") for place, item in enumerate(value)})


def _error(value: Any, path: str) -> dict[str, Any]:
    if isinstance(value, BaseException):
        return describe_error(value)
    found = {"message": value} if isinstance(value, str) else _object(value, path)
    for name in found:
        if name not in _ERROR_FIELDS:
            raise SchemaError(
                f"An error has no field '{name}'.",
                code="unknown_field",
                path=f"{path}.{name}",
                hint=did_you_mean(name, _ERROR_FIELDS) or f"It has {', '.join(_ERROR_FIELDS)}.",
            )
    return {name: text_of(part, f"{path}.{name}") for name, part in found.items() if part is not None}


_CHECKS: dict[FieldKind, Callable[[Any, str], Any]] = {
    "string": text_of,
    "id": _id,
    "time": as_ms,
    "number": number_of,
    "count": count_of,
    "strings": _strings,
    "object": _object,
    "error": _error,
    "status": lambda value, path: word_of(value, STATUSES, path, "A status"),
}


def check_fields(
    given: Mapping[str, Any], kinds: Mapping[str, FieldKind], place: str, markers: Markers
) -> dict[str, Any]:
    """The fields of an event, checked; None counts as not given.

    Args:
        given: What was given, by name.
        kinds: Name → kind, of the fields that there are.
        place: What the fields are of, for the errors' paths.
        markers: A list that takes what had to be replaced; untouched where this raises.

    Raises:
        SchemaError: There is no such field, or it cannot be so.
    """
    found: dict[str, Any] = {}
    replaced: Markers = []
    for name, value in given.items():
        if name not in kinds:
            raise SchemaError(
                f"There is no field '{name}'.", code="unknown_field", path=f"{place}.{name}",
                hint=did_you_mean(name, kinds) or f"There are {', '.join(kinds)}.",
            )  # fmt: skip
        if value is not None:
            check = _CHECKS.get(kinds[name])
            found[name] = json_of(value, name, replaced) if check is None else check(value, f"{place}.{name}")
    markers += replaced
    return found


def redacted(fields: Mapping[str, Any], redactor: Redactor | None) -> dict[str, Any]:
    """A copy of the fields of a run or a stage, with what must not leave the process made unreadable.

    Args:
        fields: Checked fields, by name.
        redactor: The rules, or None.
    """
    if redactor is None:
        return dict(fields)
    return {name: redactor.apply(value, name) if name in _REDACTED_FIELDS else value for name, value in fields.items()}
