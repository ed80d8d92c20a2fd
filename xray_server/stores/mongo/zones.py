"""The zones of pages in MongoDB: one blob beside the page's marks, where the stage declares indexed fields."""

from __future__ import annotations

import struct

import msgspec

from xray_server.zones import Zone, Zones

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[str, tuple[float | int | None, float | int | None, bytes | None]]).decode


def encode(zones: Zones) -> bytes:
    """Zones as bytes."""
    return _encode({path: (zone.low, zone.high, _packed(zone.marks)) for path, zone in zones.items()})


def decode(data: bytes | None) -> dict[str, Zone]:
    """What :func:`encode` was given; nothing where there is nothing."""
    found = {} if data is None else _decode(data)
    return {path: Zone(low, high, _unpacked(marks)) for path, (low, high, marks) in found.items()}


def _packed(marks: frozenset[int] | None) -> bytes | None:
    return None if marks is None else struct.pack(f">{len(marks)}H", *sorted(marks))


def _unpacked(marks: bytes | None) -> frozenset[int] | None:
    return None if marks is None else frozenset(struct.unpack(f">{len(marks) // 2}H", marks))
