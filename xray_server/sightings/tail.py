"""What was written and is not in a segment yet: a record for each batch, written with its pages.

A record has what a segment needs of its pages, so that nobody has to open them to build one, and may be there before
they are: it names the hashes of their ids, three bytes each, page by page.
"""

from __future__ import annotations

import itertools
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from xray.exceptions import StoreError
from xray_server.sightings.entries import HASH_BYTES, packed_hashes, unpacked_hashes
from xray_server.sightings.pages import Place, pack_places, unpack_places

PAGES_PER_RECORD = 4096
"""A larger batch has several records, so that any of them fits into a segment."""

_LEVEL = 1
"""Records are gone soon; what compresses well is the beginning of ids that begin with the time."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[bytes, list[int], bytes]).decode


@dataclass(frozen=True, slots=True)
class Listed:
    """A page and the hashes of its ids.

    Args:
        place: The page.
        packed: The hashes, ``HASH_BYTES`` each; an id that the page has twice may have its hash twice.
    """

    place: Place
    packed: bytes

    def __len__(self) -> int:
        """How many hashes there are."""
        return len(self.packed) // HASH_BYTES

    @property
    def hashes(self) -> list[int]:
        """The hashes as numbers."""
        return unpacked_hashes(self.packed)


def listed(place: Place, checksums: array[int]) -> Listed:
    """A page with the hashes of its ids, by their checksums."""
    return Listed(place, packed_hashes(checksums))


def records_of(pages: Sequence[Listed]) -> Iterator[Sequence[Listed]]:
    """The pages of a batch, cut into what one record takes."""
    for start in range(0, len(pages), PAGES_PER_RECORD):
        yield pages[start : start + PAGES_PER_RECORD]


def needle(known: int) -> bytes:
    """The bytes of a hash: what a record that has it contains, and few others do."""
    return known.to_bytes(HASH_BYTES, "little")


def pack_tail(pages: Sequence[Listed]) -> bytes:
    """A record of some pages."""
    places = pack_places([page.place for page in pages], _LEVEL)
    data: bytes = _encode((places, list(map(len, pages)), b"".join([page.packed for page in pages])))
    return data


def unpack_tail(data: bytes) -> Iterator[Listed]:
    """The pages of a record.

    Raises:
        StoreError: The bytes are damaged.
    """
    places, counts, raw = _opened(data)
    start = 0
    for place, count in zip(unpack_places(places), counts, strict=True):
        stop = start + count * HASH_BYTES
        yield Listed(place, raw[start:stop])
        start = stop


def search_tail(data: bytes, known: int) -> list[Place]:
    """The pages of a record that have a hash.

    Raises:
        StoreError: The bytes are damaged.
    """
    wanted = needle(known)
    if wanted not in data:
        return []
    packed, counts, raw = _opened(data)
    found: list[int] = []
    ends = list(itertools.accumulate(counts))
    at = raw.find(wanted)
    while at >= 0:
        if at % HASH_BYTES == 0:
            found.append(bisect_right(ends, at // HASH_BYTES))
        at = raw.find(wanted, at + 1)
    return unpack_places(packed, list(dict.fromkeys(found))) if found else []


def _opened(data: bytes) -> tuple[bytes, list[int], bytes]:
    try:
        return _decode(data)
    except msgspec.MsgspecError as error:
        raise StoreError(f"A record of the index over candidate ids cannot be read: {error}.") from error
