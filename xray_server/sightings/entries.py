"""The entries of the index over candidate ids: which hash of an id occurs on which page.

An entry is one number: 22 bits of the id's hash, then 16 bits of the page's place within its segment. Entries lie in
order, cut by ranges of the hash into parts, which a store keeps and reads, and these into slices, which are unpacked by
themselves. A slice has the differences between neighbours, one plane of bytes after the other, each compressed where
that makes it shorter: some 2.6 bytes an entry, within a tenth of the least that a set of such pairs can take.

The hash says "perhaps": who looks up opens the page. A segment has at most ``MAX_ENTRIES``, half as many as there are
hashes, so that an id costs one page opened in vain in every second of the largest segments. Each bit more would halve
that, and cost an eighth of a byte an entry.
"""

from __future__ import annotations

import itertools
import operator
import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

import zstandard

from xray.exceptions import StoreError
from xray_server.checksums import checksum_of

HASH_BITS = 22
PLACE_BITS = 16
HASH_BYTES = 3
"""What a hash takes where it is written as it is."""

MAX_PAGES = 1 << PLACE_BITS
MAX_ENTRIES = 1 << 21
SLICES = 8
ENTRIES_PER_PART = 16_384
"""Parts of some 40 KiB: smaller ones leave more of the file's pages empty, larger ones take longer to read."""

PLACES = MAX_PAGES - 1
"""The bits of an entry that are the page's place."""

_PLANES = -(-(HASH_BITS + PLACE_BITS) // 8)
_DROPPED_BITS = 32 - HASH_BITS
_WITHOUT_NEIGHBOUR = bytes(byte & (1 << HASH_BITS - 8 * (HASH_BYTES - 1)) - 1 for byte in range(256))
_HEAD = struct.Struct(f"<{_PLANES + 1}I")
_SIZES = struct.Struct(f"<{SLICES}I")
_LEVEL = 3


def id_hash(candidate_id: str) -> int:
    """The hash of a candidate's id: the upper bits of its checksum."""
    return checksum_of(candidate_id) >> _DROPPED_BITS


def packed_hashes(checksums: array[int]) -> bytes:
    """The hashes of ids by their checksums, ``HASH_BYTES`` each, the lowest byte first."""
    raw = _little(checksums).tobytes()
    # Shifted as one number, each hash is in the lower bits of its four bytes, and above them bits of its neighbour.
    shifted = (int.from_bytes(raw, "little") >> _DROPPED_BITS).to_bytes(len(raw), "little")
    hashes = bytearray(HASH_BYTES * len(checksums))
    for byte in range(HASH_BYTES - 1):
        hashes[byte::HASH_BYTES] = shifted[byte::4]
    last = HASH_BYTES - 1
    hashes[last::HASH_BYTES] = shifted[last::4].translate(_WITHOUT_NEIGHBOUR)
    return bytes(hashes)


def unpacked_hashes(packed: bytes) -> list[int]:
    """What :func:`packed_hashes` packed."""
    buffer = bytearray(len(packed) // HASH_BYTES * 4)
    for byte in range(HASH_BYTES):
        buffer[byte::4] = packed[byte::HASH_BYTES]
    return _little(array("I", bytes(buffer))).tolist()


def _little(numbers: array[int]) -> array[int]:
    """Numbers as they lie on a machine whose lowest byte comes first; the same the other way round."""
    if sys.byteorder == "big":
        numbers = numbers[:]
        numbers.byteswap()
    return numbers


def entries_of(hashes: Iterable[int], place: int) -> list[int]:
    """The entries of a page.

    Args:
        hashes: Those of its ids.
        place: The page's place in its segment.
    """
    return [known << PLACE_BITS | place for known in hashes]


def count_of_parts(entries: int) -> int:
    """Into how many parts so many entries are cut."""
    return max(1, round(entries / ENTRIES_PER_PART))


def part_of(known: int, parts: int) -> int:
    """The part that has a hash, of so many; slices are parts of the parts."""
    return known * parts >> HASH_BITS


def bounds_of(part: int, parts: int) -> tuple[int, int]:
    """The first entry that a part could have, and the first beyond it."""
    low, high = (-((-number << HASH_BITS) // parts) for number in (part, part + 1))
    return low << PLACE_BITS, high << PLACE_BITS


def cut(entries: Sequence[int]) -> Iterator[bytes]:
    """Entries in ascending order as packed parts."""
    parts = count_of_parts(len(entries))
    start = 0
    for part in range(parts):
        stop = bisect_left(entries, bounds_of(part, parts)[1], start)
        yield pack(entries[start:stop], part, parts)
        start = stop


def pack(entries: Sequence[int], part: int, parts: int) -> bytes:
    """A part as bytes.

    Args:
        entries: Its entries, in ascending order.
        part: Its number.
        parts: How many there are.
    """
    slices = []
    start = 0
    for number in range(part * SLICES, (part + 1) * SLICES):
        stop = bisect_left(entries, bounds_of(number, parts * SLICES)[1], start)
        slices.append(_packed(entries[start:stop]))
        start = stop
    return _SIZES.pack(*map(len, slices)) + b"".join(slices)


def unpack(data: bytes) -> list[int]:
    """The entries of a part.

    Raises:
        StoreError: The bytes are damaged.
    """
    return [entry for number in range(SLICES) for entry in _unpacked(_slice(data, number))]


def places_of(data: bytes, known: int, parts: int) -> list[int]:
    """The places of the pages that have a hash; each once, ascending.

    Args:
        data: The part that the hash falls into.
        known: The hash.
        parts: How many parts there are.

    Raises:
        StoreError: The bytes are damaged.
    """
    entries = _unpacked(_slice(data, part_of(known, parts * SLICES) % SLICES))
    start = bisect_left(entries, known << PLACE_BITS)
    stop = bisect_left(entries, (known + 1) << PLACE_BITS, start)
    return [entry & PLACES for entry in entries[start:stop]]


def _slice(data: bytes, number: int) -> bytes:
    try:
        sizes = _SIZES.unpack_from(data)
    except struct.error as error:
        raise StoreError(f"A part of the index over candidate ids cannot be read: {error}.") from error
    start = _SIZES.size + sum(sizes[:number])
    return data[start : start + sizes[number]]


def _packed(entries: Sequence[int]) -> bytes:
    if not entries:
        return b""
    differences = array("Q", map(operator.sub, entries, itertools.chain((0,), entries)))
    if sys.byteorder == "big":
        differences.byteswap()
    raw = differences.tobytes()
    compress = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False).compress
    planes = []
    for number in range(_PLANES):
        plane = raw[number::8]
        compressed = compress(plane) if plane.strip(b"\0") else b""
        planes.append(compressed if len(compressed) < len(plane) else plane)
    return _HEAD.pack(len(entries), *map(len, planes)) + b"".join(planes)


def _unpacked(data: bytes) -> list[int]:
    if not data:
        return []
    try:
        count, *sizes = _HEAD.unpack_from(data)
        decompress = zstandard.ZstdDecompressor().decompress
        buffer = bytearray(8 * count)
        start = _HEAD.size
        for number, size in enumerate(sizes):
            plane = data[start : start + size]
            start += size
            if size:
                buffer[number::8] = plane if size == count else decompress(plane)
    except (struct.error, ValueError, zstandard.ZstdError) as error:
        raise StoreError(f"A part of the index over candidate ids cannot be read: {error}.") from error
    differences = array("Q", bytes(buffer))
    if sys.byteorder == "big":
        differences.byteswap()
    return list(itertools.accumulate(differences))
