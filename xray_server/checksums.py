"""The checksums of candidates' ids: the marks of pages and the index over ids take their bits of the same number."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Sequence
from itertools import repeat

_SEED = zlib.crc32(b"candidate_id\0")


def checksum_of(candidate_id: str) -> int:
    """The checksum of an id: 32 bits, and never others in any version, since stores keep them."""
    return zlib.crc32(candidate_id.encode(errors="surrogatepass"), _SEED)


def checksums_of(ids: Sequence[str]) -> array[int]:
    """The checksums of ids, one each, four bytes a piece."""
    try:
        return array("I", map(zlib.crc32, map(str.encode, ids), repeat(_SEED)))
    except UnicodeEncodeError:  # lone surrogates, which the API lets nobody send
        return array("I", map(checksum_of, ids))
