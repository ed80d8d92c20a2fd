"""Plain copies: what stands in a record for values that the encoder does not take.

Everything here looks at the user's objects, which may do anything when looked at: raise, lie about their class, be
endless or know each other in circles. Subclasses of built-in containers are read by the built-in's own methods, the
rest is bounded in depth and number.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import itertools
import types
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec

MAX_DEPTH = 40
MAX_FOREIGN_ITEMS = 100_000
"""Items of a container that is no built-in one: more than that leave a marker."""

MAX_NODES = 1_000_000
MAX_NODES_OF_VALUE = 100_000
"""What a plain copy may consist of altogether, and each candidate, argument or result in it."""

_VALUE_DEPTH = 3
"""Where the candidates lie in what a stage takes: in a list (3), in a list of lists (2), in a pair (1)."""

INT_MIN, INT_MAX = -(2**63), 2**63 - 1
_MARKER = "[xray: {}]"


def marker(text: str) -> str:
    """The string that stands in a record for something that was not kept."""
    return _MARKER.format(text)


def name_of(value: Any) -> str:
    """The name of a value's type, whatever its metaclass does."""
    try:
        return str(type(value).__qualname__)
    except Exception:
        return "object"


def fields_of(value: Any) -> dict[str, Any] | None:
    """The fields of an object that stands for a record, by name, or None where it is no such object."""
    if isinstance(value, (type, types.ModuleType, types.FunctionType, types.MethodType)):
        return None
    names = getattr(type(value), "_fields", None)
    if names is not None and isinstance(value, tuple):
        return dict(zip(names, value, strict=False))
    try:
        attributes = vars(value)
    except TypeError:
        slots = [name for kind in type(value).__mro__ for name in _slots(kind)]
        if not slots:
            return None
        return {name: getattr(value, name) for name in slots if hasattr(value, name) and not name.startswith("_")}
    return {name: item for name, item in attributes.items() if not name.startswith("_")}


def _slots(kind: type) -> Iterable[str]:
    names = kind.__dict__.get("__slots__", ())
    return (names,) if isinstance(names, str) else names


def hook(value: Any) -> Any:
    """What the encoder takes in place of a value: its items, its fields, its text or a marker."""
    kind = type(value)  # never the object itself: a mock has any attribute, and remembers that it was asked
    if hasattr(kind, "tolist") and hasattr(kind, "dtype"):  # NumPy scalars and arrays, without importing NumPy
        size = getattr(value, "size", 0)
        return _too_long(value, size) or value.tolist()
    if issubclass(kind, Mapping):
        size = len(value)
        return _too_long(value, size) or dict(itertools.islice(value.items(), size))
    if issubclass(kind, (AbstractSet, Sequence)):
        size = len(value)
        return _too_long(value, size) or list(itertools.islice(value, size))
    if issubclass(kind, Iterator):
        return marker(f"{name_of(value)}, not consumed")
    fields = None if kind.__module__ in _WITHOUT_FIELDS else fields_of(value)
    return fields or _special(value)


def _too_long(value: Any, size: int) -> str | None:
    return marker(f"{name_of(value)} of {size} items") if size > MAX_FOREIGN_ITEMS else None


def _special(value: Any) -> Any:
    """What stands for a value that has no fields to show."""
    kind = type(value)
    # Subclasses: the encoder takes the types themselves.
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return str(value)
    if kind.__module__ in _AS_TEXT:
        return str(value)
    from xray.capture import frames

    if frames.is_frame(value):
        size = len(value)
        return _too_long(value, size) or frames.rows_of(value, named_id=True)[0]
    if frames.is_column(value):
        return _too_long(value, len(value)) or frames.column_values(value)
    return marker(name_of(value))


_AS_TEXT = frozenset({"pathlib", "pathlib._local", "fractions", "ipaddress"})
_WITHOUT_FIELDS = _AS_TEXT | {
    "builtins", "_io", "_thread", "threading", "socket", "ssl", "logging", "weakref", "_asyncio", "unittest.mock",
    "asyncio.unix_events", "asyncio.windows_events", "asyncio.locks", "pandas", "polars",
}  # fmt: skip


class _Budget:
    """How much may still be copied, altogether and of the value that is being copied."""

    __slots__ = ("of_value", "total")

    def __init__(self) -> None:
        self.total = MAX_NODES
        self.of_value = MAX_NODES_OF_VALUE

    def is_spent(self) -> bool:
        return self.of_value <= 0 or self.total <= 0


def plain(value: Any) -> Any:
    """A copy of a value in which everything can be encoded; what cannot be kept is a marker."""
    return _copy(value, 0, frozenset(), _Budget())


def _copy(value: Any, depth: int, above: frozenset[int], budget: _Budget) -> Any:
    try:
        if depth <= _VALUE_DEPTH:
            budget.of_value = MAX_NODES_OF_VALUE
        budget.total -= 1
        budget.of_value -= 1
        return _plain(value, depth, above, budget)
    except Exception as error:
        return marker(f"{name_of(value)}, unreadable: {type(error).__name__}")


def _plain(value: Any, depth: int, above: frozenset[int], budget: _Budget) -> Any:
    kind = type(value)  # not isinstance(): an object may lie about its class
    if value is None or kind is bool or kind is float:
        return value
    if issubclass(kind, str):
        return str.encode(value, "utf-8", "backslashreplace").decode("utf-8")
    if issubclass(kind, enum.Enum):
        return _copy(value.value, depth + 1, above, budget)
    if issubclass(kind, int):
        number = int.__pos__(value)
        return number if INT_MIN <= number <= INT_MAX else marker(f"integer of {number.bit_length()} bits")
    if issubclass(kind, float):
        return float.__pos__(value)
    if issubclass(kind, (bytes, bytearray, memoryview)):
        return bytes(value)
    if kind in _ENCODED:
        _check.encode(value)
        return value
    if id(value) in above:
        return marker("cycle")
    if depth >= MAX_DEPTH:
        return marker("too deep")
    if depth > _VALUE_DEPTH and budget.is_spent():
        return marker("too much")
    above = above | {id(value)}
    if issubclass(kind, dict):
        return _plain_dict(value, depth, above, budget)
    for base in (list, tuple, set, frozenset):
        if issubclass(kind, base) and not hasattr(kind, "_fields"):
            return _plain_list(base.__iter__(value), depth, above, budget)
    replaced = fields_of(value) if hasattr(kind, "_fields") else hook(value)
    return _copy(replaced, depth + 1, above, budget)


_ENCODED = frozenset({dt.date, dt.time, dt.datetime, dt.timedelta, decimal.Decimal, uuid.UUID})
_check = msgspec.msgpack.Encoder(decimal_format="string", uuid_format="canonical")


def _plain_dict(value: dict[Any, Any], depth: int, above: frozenset[int], budget: _Budget) -> dict[str, Any]:
    copied: dict[str, Any] = {}
    for key, item in dict.items(value):
        if depth >= _VALUE_DEPTH and budget.is_spent():
            copied[marker("more")] = marker(f"{dict.__len__(value)} items, too much")
            break
        copied[_key(key)] = _copy(item, depth + 1, above, budget)
    return copied


def _plain_list(items: Iterator[Any], depth: int, above: frozenset[int], budget: _Budget) -> list[Any]:
    copied: list[Any] = []
    for item in items:
        # A list of candidates keeps its length whatever they are.
        if depth >= _VALUE_DEPTH and budget.is_spent():
            copied.append(marker("more, too much"))
            break
        copied.append(_copy(item, depth + 1, above, budget))
    return copied


def _key(key: Any) -> str:
    try:
        text = str.__str__(key) if issubclass(type(key), str) else str(key)
        return text.encode("utf-8", "backslashreplace").decode("utf-8")
    except Exception as error:
        return marker(f"{name_of(key)}, unreadable: {type(error).__name__}")
