"""How values lie in stores: what all of them do alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import zstandard

COMPRESS_FROM_BYTES = 512
"""JSON shorter than this is kept as text: zstd saves little and whoever looks into the store can read it."""

_encode_json = msgspec.json.Encoder().encode
_decode_json = msgspec.json.Decoder().decode


def to_json(value: Any) -> str:
    """A JSON value as text."""
    return _encode_json(value).decode()


def from_json(text: str | bytes) -> Any:
    """The value of JSON text."""
    return _decode_json(text)


def pack(value: Any) -> str | bytes:
    """A JSON value as text, or as compressed bytes where it is long."""
    encoded = _encode_json(value)
    if len(encoded) >= COMPRESS_FROM_BYTES:
        return zstandard.ZstdCompressor(level=3).compress(encoded)
    return encoded.decode()


def unpack(packed: str | bytes) -> Any:
    """The value that :func:`pack` was given."""
    return _decode_json(unpacked(packed))


def unpacked(packed: str | bytes) -> str | bytes:
    """The JSON text of the value that :func:`pack` was given."""
    return zstandard.ZstdDecompressor().decompress(packed) if isinstance(packed, bytes) else packed


def is_number(value: Any) -> bool:
    """Whether a value is a number that every store keeps as it is: finite, within 64 bits, no boolean."""
    kind = type(value)
    if kind is float:
        return math.isfinite(value)
    # An integer of another class is one too: drivers have classes of their own for long ones.
    return kind is not bool and isinstance(value, int) and -(2**63) <= value < 2**63


def merge_declarations(
    there: Sequence[Mapping[str, Any]], declared: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """The declarations of both by name, sorted; where two disagree the one whose JSON is greater stays."""
    merged: dict[str, Mapping[str, Any]] = {}
    for declaration in (*there, *declared):
        known = merged.setdefault(declaration["name"], declaration)
        merged[declaration["name"]] = max(known, declaration, key=lambda d: to_json(dict(sorted(d.items()))))
    return [merged[name] for name in sorted(merged)]
