"""Snapshots: the bytes of the user's values at one moment, so that later changes do not reach what is recorded.

A snapshot is taken on the caller's thread by one pass of a C encoder. Values that it does not take go through
:func:`plain`, which replaces what cannot be kept with a marker. What the worker decodes becomes JSON in
:func:`to_json`.
"""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import math
import threading
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec

MAX_DEPTH = 40
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1
_MARKER = "[xray: {}]"


def marker(text: str) -> str:
    """The string that stands in a record for something that was not kept."""
    return _MARKER.format(text)


def snapshot(value: Any) -> bytes:
    """The bytes of a value made of candidates and arguments; attributes of plain objects are included.

    Args:
        value: Anything; it is only read, iterators are never consumed.

    Returns:
        msgpack, to be read by :func:`restore`.
    """
    # A buffer that is kept between calls saves growing a new one step by step: half of the time for large values.
    # It is taken out while in use, because encoding may call code that records something itself.
    buffer, _kept.buffer = _kept.buffer, None
    if buffer is None:
        buffer = bytearray()
    try:
        try:
            _encoder.encode_into(value, buffer)
        except Exception:
            _encoder.encode_into(plain(value), buffer)
        return bytes(buffer)
    finally:
        if len(buffer) <= _KEPT_BYTES:
            _kept.buffer = buffer


def restore(data: bytes) -> Any:
    """The plain value in a snapshot: dicts, lists, strings, numbers, bytes and datetimes."""
    return msgspec.msgpack.decode(data, strict=False)


def fields_of(value: Any) -> dict[str, Any] | None:
    """The fields of an object that stands for a record, by name, or None where it is no such object."""
    if isinstance(value, (type, types.ModuleType, types.FunctionType, types.MethodType)):
        return None
    names = getattr(value, "_fields", None)
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


def _hook(value: Any) -> Any:
    if hasattr(value, "tolist") and hasattr(value, "dtype"):  # NumPy scalars and arrays, without importing NumPy
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (AbstractSet, Sequence)):
        return list(value)
    if isinstance(value, Iterator):
        return marker(f"{type(value).__name__}, not consumed")
    fields = fields_of(value)
    if fields is None or type(value).__module__ in _OPAQUE_MODULES:
        return marker(type(value).__qualname__)
    return fields


_OPAQUE_MODULES = frozenset(
    {"builtins", "_io", "_thread", "threading", "socket", "ssl", "logging", "weakref", "_asyncio"}
)
_encoder = msgspec.msgpack.Encoder(enc_hook=_hook, decimal_format="string", uuid_format="canonical")


_KEPT_BYTES = 8 << 20


class _Kept(threading.local):
    """The buffer that each thread keeps for its next snapshot."""

    buffer: bytearray | None = None


_kept = _Kept()


def plain(value: Any, depth: int = 0, above: frozenset[int] = frozenset()) -> Any:
    """A copy of a value in which everything can be encoded; what cannot be kept is a marker."""
    try:
        return _plain(value, depth, above)
    except Exception as error:
        return marker(f"{type(value).__qualname__}, unreadable: {type(error).__name__}")


def _plain(value: Any, depth: int, above: frozenset[int]) -> Any:
    if value is None or type(value) is bool or type(value) is float:
        return value
    if isinstance(value, str):
        return str.encode(value, "utf-8", "replace").decode("utf-8")
    if type(value) is int:
        return value if _INT_MIN <= value <= _INT_MAX else marker(f"integer of {value.bit_length()} bits")
    if isinstance(value, (bytes, bytearray, memoryview, dt.date, dt.time, decimal.Decimal)):
        return value
    if id(value) in above:
        return marker("cycle")
    if depth >= MAX_DEPTH:
        return marker("too deep")
    above = above | {id(value)}
    if isinstance(value, Mapping):
        return {_key(key): plain(item, depth + 1, above) for key, item in value.items()}
    if isinstance(value, (list, tuple, AbstractSet)) and not hasattr(value, "_fields"):
        return [plain(item, depth + 1, above) for item in value]
    replaced = fields_of(value) if hasattr(value, "_fields") else _hook(value)
    return plain(replaced, depth + 1, above)


def _key(key: Any) -> str:
    return plain(key) if isinstance(key, str) else str(key)


def to_json(value: Any, markers: list[dict[str, Any]] | None = None, path: str = "") -> Any:
    """A decoded snapshot as JSON that every store keeps alike.

    A datetime becomes ISO 8601 in UTC; bytes, NaN, infinities, integers beyond 64 bits, NUL and lone surrogates are
    replaced with a marker.

    Args:
        value: What :func:`restore` gave.
        markers: A list that takes ``{path, kind, size}`` for each replacement, or None.
        path: The path of the value, for the markers.
    """
    kind = type(value)
    if kind is str:
        return value if "\0" not in value else _mark(value.replace("\0", "\ufffd"), markers, path, "nul", len(value))
    if value is None or kind is bool:
        return value
    if kind is int:
        if _INT_MIN <= value <= _INT_MAX:
            return value
        return _mark(marker(f"integer of {value.bit_length()} bits"), markers, path, "integer", value.bit_length())
    if kind is float:
        return value if math.isfinite(value) else _mark(marker(str(value)), markers, path, "not_finite", 8)
    if kind is dict:
        return {
            (key if type(key) is str and "\0" not in key else str(key).replace("\0", "\ufffd")): to_json(
                item, markers, f"{path}.{key}"
            )
            for key, item in value.items()
        }
    if kind is list:
        return [to_json(item, markers, f"{path}.{place}") for place, item in enumerate(value)]
    if isinstance(value, dt.datetime):
        moment = value if value.tzinfo is None else value.astimezone(dt.UTC)
        return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
    if isinstance(value, bytes):
        head = base64.b64encode(value[:12]).decode()
        return _mark(marker(f"{len(value)} bytes: {head}…"), markers, path, "bytes", len(value))
    return _mark(marker(kind.__qualname__), markers, path, "type", 0)


def _mark(replacement: str, markers: list[dict[str, Any]] | None, path: str, kind: str, size: int) -> str:
    if markers is not None and len(markers) < 100:
        markers.append({"path": path.lstrip("."), "kind": kind, "size": size})
    return replacement
