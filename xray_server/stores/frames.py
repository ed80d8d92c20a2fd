"""Compressed values as they lie in stores: zstd frames, and behind them what cannot be compressed.

A frame is kept without the four bytes that every frame begins with. Values of earlier versions have them: what follows
in the others never begins with the first of the four, because its fourth bit is reserved in a frame's header.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from xray_server.packing import read_texts, size_of_texts, split, write_texts
from xray_server.pages import CandidatePage

_MAGIC = b"\x28\xb5\x2f\xfd"

_encode_json = msgspec.json.Encoder().encode
_decode_json = msgspec.json.Decoder().decode


def shortened(frame: bytes) -> bytes:
    """A frame as it is kept."""
    return frame[len(_MAGIC) :]


def frame_of(value: bytes) -> bytes:
    """The frame that a value begins with."""
    return value if value[:1] == _MAGIC[:1] else _MAGIC + value


def page_parts(page: CandidatePage, *before: object) -> tuple[bytes, bytes]:
    """What a page holds: what is to be compressed, and what is not.

    Args:
        page: The page.
        before: What else is to be kept of it.
    """
    seqs: Sequence[int] = page.seqs
    if seqs[-1] - seqs[0] == len(seqs) - 1:
        seqs = seqs[:1]
    of_ids: list[bytes] = []
    texts = write_texts(page.ids, of_ids)
    text, digits = split(page.packed)
    digits = b"".join((*of_ids, digits))
    head = _encode_json([*before, seqs, texts, page.reason_labels, len(digits)])
    return b"%b\n%b" % (head, text), digits


class Opened:
    """What is in the value of a page.

    Args:
        value: The value: the first of :func:`page_parts` compressed, and the second.
        count: How many candidates the page has.
        decompress: Decompresses a value.
        before: How many things were given to :func:`page_parts` beside the page.
    """

    __slots__ = ("before", "ids", "packed", "reason_labels", "seqs")

    def __init__(self, value: bytes, count: int, decompress: Callable[[bytes], bytes], before: int = 0) -> None:
        head, packed = decompress(value).split(b"\n", 1)
        parts = _decode_json(head)
        self.before = parts[:before]
        seqs, texts, self.reason_labels, *rest = parts[before:]
        digits = value[-rest[0] :] if rest and rest[0] else b""  # values of earlier versions say nothing of digits
        self.ids: list[str] = read_texts(texts, count, digits)
        self.seqs: Sequence[int] = range(seqs[0], seqs[0] + count) if len(seqs) == 1 else seqs
        self.packed = b"%b\n%b" % (packed, digits[size_of_texts(texts, count) :]) if rest else packed
