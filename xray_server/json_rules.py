"""What users record is JSON that every store keeps alike.

NaN, infinities, integers beyond 64 bits, NUL, lone surrogates, and what msgpack has beyond JSON (bytes, timestamps,
extension types) are replaced with a marker, or with U+FFFD inside texts.
"""

from __future__ import annotations

import datetime as dt
import functools
import math
from collections.abc import Sequence
from typing import Any

from xray.capture.snapshot import marker
from xray_server.tables import Table, as_table

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

MAX_DEPTH = 90
"""Below the 100 levels that MongoDB takes, with room for what the documents add around a value."""

_HARMLESS = {type(None), bool}
_TEXTS = {str}


def is_clean(value: Any, depth: int = 0) -> bool:
    """Whether a decoded value keeps the rules as it is; the common case, so that nothing is copied for it."""
    kind = type(value)
    if kind is str:
        return "\0" not in value and (value.isascii() or _is_encodable(value))
    if kind in _HARMLESS:
        return True
    if kind is int:
        return bool(INT64_MIN <= value <= INT64_MAX)
    if kind is float:
        return math.isfinite(value)
    if depth >= MAX_DEPTH:
        return False
    if kind is list:
        return not value or is_clean_list(value, depth)
    if kind is not dict:
        return False
    for key, item in value.items():
        if type(key) is not str or "\0" in key or not (key.isascii() or _is_encodable(key)):
            return False
        if not is_clean(item, depth + 1):
            return False
    return True


def is_clean_list(values: Sequence[Any], depth: int = 0) -> bool:
    """Whether every value of a list keeps the rules; lists of one type, and of one form, are looked at as a whole."""
    kinds = set(map(type, values))
    if kinds == _TEXTS:
        return _are_clean_texts(values)
    kinds -= _HARMLESS
    if not kinds:
        return True
    if len(kinds) == 1:
        (kind,) = kinds
        if kind is str:
            return _are_clean_texts([value for value in values if type(value) is str])
        if kind is float and math.isfinite(sum(filter(None, values))):
            return True
        if kind is int:
            numbers: list[int] = [0, *filter(None, values)]
            return min(numbers) >= INT64_MIN and max(numbers) <= INT64_MAX
        if kind is dict and depth + 1 < MAX_DEPTH:
            table = as_table(values)
            if table is not None:
                return is_clean_table(table, depth + 1)
    return all(is_clean(value, depth + 1) for value in values)


def is_clean_table(table: Table, depth: int = 0) -> bool:
    """Whether every object of a table keeps the rules."""
    if not _are_clean_keys(table.keys):
        return False
    for column in table.columns:  # noqa: SIM110 - a generator costs as much as looking at a short column
        if not is_clean_list(column, depth):
            return False
    return True


@functools.lru_cache(maxsize=1024)  # the same few from stage to stage
def _are_clean_keys(keys: tuple[Any, ...]) -> bool:
    return all(type(key) is str and is_clean(key) for key in keys)


def _are_clean_texts(texts: Sequence[str]) -> bool:
    joined = "".join(texts)
    # Two lone surrogates of neighbouring texts stay two lone surrogates when joined.
    return "\0" not in joined and (joined.isascii() or _is_encodable(joined))


def clean(value: Any) -> Any:
    """The value where it keeps the rules, else a copy that does.

    Args:
        value: What a JSON or msgpack decoder gave.
    """
    return value if is_clean(value) else _replaced(value, 0)


def clean_text(text: str) -> str:
    """A text without NUL and lone surrogates; U+FFFD stands in their place."""
    if "\0" not in text and (text.isascii() or _is_encodable(text)):
        return text
    return "".join("\ufffd" if c == "\0" or "\ud800" <= c <= "\udfff" else c for c in text)


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _replaced(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if INT64_MIN <= value <= INT64_MAX else marker(f"integer of {value.bit_length()} bits")
    if isinstance(value, float):
        return value if math.isfinite(value) else marker(str(value))
    if isinstance(value, dict | list):
        if depth >= MAX_DEPTH:
            return marker("too deep")
        if isinstance(value, list):
            return [_replaced(item, depth + 1) for item in value]
        return {clean_text(str(key)): _replaced(item, depth + 1) for key, item in value.items()}
    if isinstance(value, dt.datetime):
        moment = value if value.tzinfo is None else value.astimezone(dt.UTC)
        return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
    if isinstance(value, bytes):
        return marker(f"{len(value)} bytes")
    return marker(type(value).__qualname__)
