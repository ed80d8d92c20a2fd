"""The format of the spool's files: frames one after the other, each with checksums.

A file begins with a head (what it is, and where its records are to go). A frame holds one record: a header with its
number in the file, the length and checksum of what follows and a checksum of itself, then the record's events as
msgpack, compressed where that is worth it. Where a frame is damaged, the next good one is looked for; the numbers
tell how many are missing.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import msgspec

from xray.delivery.forks import importing

_HEAD = struct.Struct("<8sI")
_HEAD_MAGIC = b"XRAYSPL1"
_MAGIC = b"\xf5XR\xfa"
_FIELDS = struct.Struct("<4sIB3xII")
_CHECK = struct.Struct("<I")
HEADER_BYTES = _FIELDS.size + _CHECK.size
_PLAIN, _ZLIB, _ZSTD = range(3)
_COMPRESS_FROM_BYTES = 1024
_WINDOW_BYTES = 1 << 20

_KEPT_BYTES = 4 << 20

_encode_into = msgspec.msgpack.Encoder().encode_into
_decode_events = msgspec.msgpack.Decoder(list[dict[str, msgspec.Raw]]).decode


class UnreadableError(Exception):
    """A frame that needs a library that is not installed."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A record as it is written, but for its number."""

    kind: int
    payload: bytes
    checksum: int

    @property
    def size_bytes(self) -> int:
        """What it takes in a file."""
        return HEADER_BYTES + len(self.payload)

    def header(self, number: int) -> bytes:
        """The header.

        Args:
            number: The frame's number in its file, from 0.
        """
        fields = _FIELDS.pack(_MAGIC, number, self.kind, len(self.payload), self.checksum)
        return fields + _CHECK.pack(zlib.crc32(fields))


def make_frame(events: Sequence[dict[str, Any]]) -> Frame:
    """A record's frame.

    Args:
        events: Its events.
    """
    # What is in use by nobody else is in the list; lists are safe for several threads.
    press = _presses.pop() if _presses else _Press()
    try:
        kind, payload = press.press(events)
    finally:
        _presses.append(press)
    return Frame(kind, payload, zlib.crc32(payload))


class _Press:
    """Encodes and compresses; memory of this size, fetched anew for each record, would cost as much as the work."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._compress, self._kind = _compression()

    def press(self, events: Sequence[dict[str, Any]]) -> tuple[int, bytes]:
        buffer = self._buffer
        _encode_into(events, buffer)
        size = len(buffer)
        kind, payload = _PLAIN, b""
        if size >= _COMPRESS_FROM_BYTES:
            kind, payload = self._kind, self._compress(buffer)
        if kind == _PLAIN or len(payload) >= size:
            kind, payload = _PLAIN, bytes(buffer)
        if size > _KEPT_BYTES:
            self._buffer = bytearray()
        return kind, payload


_presses: list[_Press] = []


def events_in(kind: int, payload: bytes) -> tuple[list[dict[str, Any]], int]:
    """The events of a frame, and what they weigh; their columns stay the msgpack that they are.

    Raises:
        UnreadableError: It was compressed by a library that is not installed here.
        ValueError: It holds no events.
    """
    if kind == _ZSTD:
        payload = _decompress_zstd(payload)
    elif kind == _ZLIB:
        try:
            payload = zlib.decompress(payload)
        except zlib.error as error:
            raise ValueError(str(error)) from None
    try:
        events = [
            {name: raw if name == "columns" else msgspec.msgpack.decode(raw) for name, raw in event.items()}
            for event in _decode_events(payload)
        ]
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None
    return events, len(payload)


def _compression() -> tuple[Callable[[bytearray], bytes], int]:
    """What compresses, for one thread at a time, and how frames say so."""
    try:
        with importing:
            import zstandard
    except ImportError:
        return (lambda payload: zlib.compress(payload, 1)), _ZLIB
    return zstandard.ZstdCompressor(level=1).compress, _ZSTD


def _decompress_zstd(payload: bytes) -> bytes:
    try:
        import zstandard
    except ImportError:
        raise UnreadableError("reading this spool needs the package zstandard") from None
    try:
        return zstandard.ZstdDecompressor().decompress(payload)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from None


def make_head(destination: str) -> bytes:
    """How a segment begins.

    Args:
        destination: Where its records are to go.
    """
    text = destination.encode("utf-8", "replace")
    return _HEAD.pack(_HEAD_MAGIC, len(text)) + text + _CHECK.pack(zlib.crc32(text))


def read_head(file: BinaryIO) -> tuple[str | None, int]:
    """Where the records of a segment are to go, or None where its beginning is damaged; and where its frames begin."""
    file.seek(0)
    start = file.read(_HEAD.size)
    if len(start) == _HEAD.size:
        magic, length = _HEAD.unpack(start)
        text = file.read(min(length, _WINDOW_BYTES))
        check = file.read(_CHECK.size)
        if magic == _HEAD_MAGIC and len(check) == _CHECK.size and _CHECK.unpack(check)[0] == zlib.crc32(text):
            return text.decode("utf-8", "replace"), _HEAD.size + length + _CHECK.size
    return None, 0


@dataclass(frozen=True, slots=True)
class Found:
    """A frame that was found in a file: where the next one begins, its number, and its payload where it was read."""

    end: int
    number: int
    kind: int
    payload: bytes | None


def frames(file: BinaryIO, offset: int, end: int, *, with_payload: bool = True) -> Iterator[Found]:
    """The good frames of a part of a segment, in order; damaged ones are passed over.

    Args:
        file: The segment.
        offset: Where to begin.
        end: Where to stop.
        with_payload: Whether to read, and check, what the frames hold.
    """
    while offset + HEADER_BYTES <= end:
        file.seek(offset)
        header = file.read(HEADER_BYTES)
        fields = _header(header)
        if fields is None:
            offset = _next_magic(file, offset + 1, end)
            continue
        number, kind, length, checksum = fields
        following = offset + HEADER_BYTES + length
        if following > end:
            # Torn at the end, or overwritten by another's beginning.
            offset = _next_magic(file, offset + 1, end)
            continue
        payload = None
        if with_payload:
            payload = file.read(length)
            if zlib.crc32(payload) != checksum:
                offset = following
                continue
        yield Found(following, number, kind, payload)
        offset = following


def _header(header: bytes) -> tuple[int, int, int, int] | None:
    if len(header) < HEADER_BYTES or not header.startswith(_MAGIC):
        return None
    if _CHECK.unpack_from(header, _FIELDS.size)[0] != zlib.crc32(header[: _FIELDS.size]):
        return None
    _, number, kind, length, checksum = _FIELDS.unpack_from(header)
    return number, kind, length, checksum


def _next_magic(file: BinaryIO, offset: int, end: int) -> int:
    while offset < end:
        file.seek(offset)
        window = file.read(min(_WINDOW_BYTES, end - offset))
        place = window.find(_MAGIC)
        if place >= 0:
            return offset + place
        if len(window) < len(_MAGIC):
            break
        offset += max(1, len(window) - len(_MAGIC) + 1)
    return end


def size_of(file: BinaryIO) -> int:
    """How long a file is."""
    return os.fstat(file.fileno()).st_size
