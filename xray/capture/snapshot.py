"""Snapshots: the bytes of the user's values at one moment, so that later changes do not reach what is recorded.

A snapshot is taken on the caller's thread by one pass of a C encoder. Values that it does not take go through
:func:`plain`, which replaces what cannot be kept with a marker. What the worker decodes becomes JSON in
:func:`to_json`.
"""

from __future__ import annotations

import base64
import collections
import datetime as dt
import math
from typing import Any

import msgspec

from xray.capture.plain import INT_MAX, INT_MIN, fields_of, hook, marker, plain

__all__ = ["fields_of", "marker", "plain", "recycle", "restore", "snapshot", "to_json"]


def snapshot(value: Any) -> bytes | bytearray:
    """The bytes of a value made of candidates and arguments; attributes of plain objects are included.

    Args:
        value: Anything; it is only read, iterators are never consumed.

    Returns:
        msgpack, to be read by :func:`restore`. The caller owns it, and may give a large one back with
        :func:`recycle` when nothing refers to it any more.
    """
    # A buffer that is used again saves growing a new one step by step: half of the time for large values. It is taken
    # out while in use, because encoding may call code that records something itself.
    try:
        buffer = _spare.pop()
    except IndexError:
        buffer = bytearray()
    try:
        _encode_into(value, buffer)
    except Exception:
        _encode_into(plain(value), buffer)
    if len(buffer) >= _HANDED_OVER_FROM_BYTES:
        return buffer
    data = bytes(buffer)
    if len(_spare) < _SPARES:
        _spare.append(buffer)
    return data


def recycle(data: bytes | bytearray) -> None:
    """Take back the bytes of a large snapshot for the next one: memory that is in use already costs nothing to get.

    Args:
        data: What :func:`snapshot` gave; nothing may read it from here on. It is left alone where something still does.
    """
    if type(data) is bytearray and len(data) <= _SPARE_BYTES and len(_spare) < _SPARES:
        try:
            data.append(0)  # refused while anything looks into it
        except BufferError:
            return
        _spare.append(data)


_HANDED_OVER_FROM_BYTES = 64 << 10
"""Snapshots from this size on are handed over in their buffer instead of being copied out of it."""

_SPARES = 8
_SPARE_BYTES = 4 << 20
_spare: collections.deque[bytearray] = collections.deque()
"""Buffers that are not in use: of snapshots that were copied out of them, or that were sent."""


def restore(data: bytes | bytearray) -> Any:
    """The plain value in a snapshot: dicts, lists, strings, numbers, bytes and datetimes."""
    return msgspec.msgpack.decode(data, strict=False)


_encode_into = msgspec.msgpack.Encoder(enc_hook=hook, decimal_format="string", uuid_format="canonical").encode_into


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
        if INT_MIN <= value <= INT_MAX:
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
        try:
            moment = value if value.tzinfo is None else value.astimezone(dt.UTC)
        except OverflowError:  # on the other side of year 1 or 9999
            moment = value
        return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
    if isinstance(value, bytes):
        head = base64.b64encode(value[:12]).decode()
        return _mark(marker(f"{len(value)} bytes: {head}…"), markers, path, "bytes", len(value))
    return _mark(marker(kind.__qualname__), markers, path, "type", 0)


def _mark(replacement: str, markers: list[dict[str, Any]] | None, path: str, kind: str, size: int) -> str:
    if markers is not None and len(markers) < 100:
        markers.append({"path": path.lstrip("."), "kind": kind, "size": size})
    return replacement
