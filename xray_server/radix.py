"""Small numbers as few bytes: each column of them is one number with as many digits, a few dozen at a time.

What compressors are bad at is what looks random: the digits of ids and prices, which of a few labels a candidate has.
A compressor spends a whole symbol of text on each; here a choice of four takes two bits, and a digit 3.3.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

AT_ONCE = 32
"""Digits that become one number: more take longer to read, fewer leave more bits unused at their end."""

SYMBOLS = "0123456789abcdefghijklmnopqrstuvwxyz"
"""The digits of a text."""


def write(numbers: Sequence[int], radix: int, low: int = 0) -> bytes:
    """Numbers as bytes.

    Args:
        numbers: The numbers.
        radix: More than each of them, less the lowest.
        low: The lowest, or less.
    """
    parts = []
    for start in range(0, len(numbers), AT_ONCE):
        some = numbers[start : start + AT_ONCE]
        whole = 0
        for number in some:
            whole = whole * radix + number - low
        parts.append(whole.to_bytes(_bytes_of(len(some), radix), "big"))
    return b"".join(parts)


def write_text(text: str, radix: int, width: int = 1) -> bytes:
    """Numbers that stand as text; the same bytes as :func:`write` gives for them, in less time.

    Args:
        text: The numbers, each with as many digits, one after the other.
        radix: That of the text, up to 36.
        width: How many digits each has.
    """
    parts = []
    step = AT_ONCE * width
    for start in range(0, len(text), step):
        some = text[start : start + step]
        parts.append(int(some, radix).to_bytes(_bytes_of(len(some) // width, radix**width), "big"))
    return b"".join(parts)


def read(data: bytes, start: int, count: int, radix: int) -> list[int]:
    """The numbers of :func:`write`.

    Args:
        data: What has them.
        start: Where they begin in it.
        count: How many they are.
        radix: As it was given.
    """
    numbers: list[int] = []
    for first in range(0, count, AT_ONCE):
        some = min(AT_ONCE, count - first)
        stop = start + _bytes_of(some, radix)
        whole = int.from_bytes(data[start:stop], "big")
        start = stop
        if radix & (radix - 1) == 0:
            bits, mask = radix.bit_length() - 1, radix - 1
            numbers += [whole >> shift & mask for shift in range(bits * (some - 1), -1, -bits)] if bits else [0] * some
            continue
        digits = [0] * some
        for place in range(some - 1, -1, -1):
            whole, digits[place] = divmod(whole, radix)
        numbers += digits
    return numbers


def read_text(data: bytes, start: int, count: int, width: int) -> str:
    """What :func:`write_text` was given, of decimal digits."""
    parts = []
    for first in range(0, count, AT_ONCE):
        some = min(AT_ONCE, count - first)
        stop = start + _bytes_of(some, 10**width)
        parts.append(str(int.from_bytes(data[start:stop], "big")).zfill(some * width))
        start = stop
    return "".join(parts)


def size_of(count: int, radix: int) -> int:
    """How many bytes so many numbers take."""
    whole, rest = divmod(count, AT_ONCE)
    return whole * _bytes_of(AT_ONCE, radix) + (_bytes_of(rest, radix) if rest else 0)


@functools.lru_cache(maxsize=4096)
def _bytes_of(count: int, radix: int) -> int:
    bits: int = (radix**count - 1).bit_length()
    return -(-bits // 8)
