"""One list of candidates as it was taken on the caller's thread."""

from __future__ import annotations

from typing import Any

from xray.capture.snapshot import recycle

_EMPTY = b"\x90"
"""The msgpack of an empty list."""

ByField = tuple[tuple[str, ...], list[bytes], int]
"""What the worker makes a ``xray.capture.fields.FieldColumns`` of: names, columns, how many candidates."""


class Taken:
    """One list of candidates as it was taken: their bytes, and what the bytes do not hold or are slow to give.

    ``packed`` is the msgpack of the list. Of dicts there may be the columns of their ``fields`` in its place, or only
    what a summary needs of them: ``picked``, the columns by the decorator's keywords. ``are_records`` says that all
    candidates are known to be dicts; ``live`` has the values of fields that were read from the live candidates,
    ``ordinals`` a number for each candidate by identity, ``facts`` what is worth saying about the list.

    Args:
        packed: The msgpack.
        are_records: Whether it is known to be of dicts.
    """

    __slots__ = ("are_records", "facts", "fields", "live", "ordinals", "packed", "picked")

    def __init__(self, packed: bytes | bytearray = _EMPTY, *, are_records: bool = False) -> None:
        self.packed = packed
        self.are_records = are_records
        self.fields: ByField | None = None
        self.picked: ByField | None = None
        self.live: dict[str, list[Any]] | None = None
        self.ordinals: list[int] | None = None
        self.facts: dict[str, Any] | None = None

    def release(self) -> None:
        """Give the memory back: the record was sent, or will not be."""
        packed, self.packed = self.packed, _EMPTY
        recycle(packed)

    @property
    def size_bytes(self) -> int:
        """What it weighs in the buffer, about."""
        size = 100 + len(self.packed)
        by_field = self.fields or self.picked
        if by_field is not None:
            size += sum(map(len, by_field[1]))
        if self.ordinals is not None:
            size += 8 * len(self.ordinals)
        if self.live is not None:
            for values in self.live.values():
                size += 16 * len(values)
        return size
