"""The pages that the index names, in blocks that are read by themselves.

A block has, for up to ``PAGES_PER_BLOCK`` pages, what the store finds a page by, and the start of its run: enough to
take the latest of many sightings without looking at the others.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import zstandard

from xray.exceptions import StoreError
from xray.ids import is_id

PAGES_PER_BLOCK = 64
_LEVEL = 9
_UUID_BYTES = 16
_encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class Place:
    """A page, by what a store finds it by.

    Args:
        stage: The stage: a number or an id, as the store likes it; of one kind in all of a store.
        page: The page's number in the stage.
        start: The start of the run in milliseconds since 1970, as it came with the candidates; or None.
    """

    stage: int | str
    page: int
    start: int | None

    @property
    def key(self) -> tuple[int | str, int]:
        """Which page it is."""
        return self.stage, self.page


class _Block(msgspec.Struct, array_like=True):
    stages: list[int | str] | bytes
    pages: list[int] | int
    starts: list[int] | None
    without: list[int]
    """The places of the pages without a start."""


_decode = msgspec.msgpack.Decoder(_Block).decode


def pack_places(places: Sequence[Place], level: int = _LEVEL) -> bytes:
    """A block of pages as bytes.

    Args:
        places: The pages.
        level: How hard to compress them.
    """
    numbers = [place.page for place in places]
    starts = [place.start for place in places]
    known = [0 if start is None else start for start in starts]
    without = [number for number, start in enumerate(starts) if start is None]
    block = _Block(
        _pack_stages([place.stage for place in places]),
        numbers[0] if len(set(numbers)) == 1 else numbers,
        None if len(without) == len(places) else _differences(known),
        without,
    )
    data: bytes = _encode(block)
    compressed = zstandard.ZstdCompressor(level=level).compress(data)
    return compressed if len(compressed) < len(data) else data


def unpack_places(data: bytes, wanted: Sequence[int] | None = None) -> list[Place]:
    """The pages of :func:`pack_places`.

    Args:
        data: The block.
        wanted: Which of its pages, by their place in the block; all by default.

    Raises:
        StoreError: The bytes are damaged.
    """
    try:
        block = _decode(zstandard.ZstdDecompressor().decompress(data) if data[:4] == zstandard.FRAME_HEADER else data)
    except (zstandard.ZstdError, msgspec.MsgspecError) as error:
        raise StoreError(f"A block of the index over candidate ids cannot be read: {error}.") from error
    stage_of, count = _stages(block.stages)
    starts = None if block.starts is None else list(itertools.accumulate(block.starts))
    without = frozenset(block.without)
    return [
        Place(
            stage_of(place),
            block.pages if isinstance(block.pages, int) else block.pages[place],
            None if starts is None or place in without else starts[place],
        )
        for place in (range(count) if wanted is None else wanted)
    ]


def _differences(numbers: Sequence[int]) -> list[int]:
    return list(map(operator.sub, numbers, itertools.chain((0,), numbers)))


def _pack_stages(stages: Sequence[int | str]) -> list[int | str] | bytes:
    """Numbers as differences; UUIDs as their bytes, the first of each, then the second, because these are alike."""
    numbers = [stage for stage in stages if isinstance(stage, int)]
    if len(numbers) == len(stages):
        return list(_differences(numbers))
    texts = [str(stage) for stage in stages]
    if all(map(is_id, texts)):
        raw = bytes.fromhex("".join(texts).replace("-", ""))
        return b"".join(raw[place::_UUID_BYTES] for place in range(_UUID_BYTES))
    return list(texts)


def _as_uuid(raw: bytes) -> str:
    digits = raw.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _stages(packed: list[int | str] | bytes) -> tuple[Callable[[int], int | str], int]:
    """What gives the stage of a place in the block, and how many there are."""
    if isinstance(packed, bytes):
        count = len(packed) // _UUID_BYTES
        return lambda place: _as_uuid(packed[place::count]), count
    if packed and isinstance(packed[0], int):
        numbers: list[int] = list(itertools.accumulate(packed))  # type: ignore[arg-type]  # all of one kind
        return numbers.__getitem__, len(numbers)
    return packed.__getitem__, len(packed)
