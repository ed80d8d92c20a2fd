"""Segments of the index over candidate ids: made once, never changed, merged into larger ones.

What was written lately lies in records (``tail.py``) that every look-up goes through. Four thousand pages of them
become a segment; twelve segments of about one size become one. So a look-up reads one part of some segments of each
size, and each entry is written three times. Segments end growing at ``MAX_PAGES`` or
``MAX_ENTRIES``: then a merge takes bounded memory and time, and retention, which removes what is old, finds segments
of which nothing is left.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from xray_server.sightings.entries import (
    MAX_ENTRIES,
    MAX_PAGES,
    PLACE_BITS,
    PLACES,
    bounds_of,
    count_of_parts,
    cut,
    entries_of,
    pack,
    part_of,
    unpack,
)
from xray_server.sightings.pages import PAGES_PER_BLOCK, Place, pack_places, unpack_places
from xray_server.sightings.tail import Listed

FAN_OUT = 12
"""Segments of one size that are merged into one."""

PAGES_PER_SEGMENT = 4096
ENTRIES_PER_SEGMENT = 20 * PAGES_PER_SEGMENT
"""So many pages or entries in records are worth a segment."""

PAGES_AT_ONCE = 4 * PAGES_PER_SEGMENT
ENTRIES_AT_ONCE = 4 * ENTRIES_PER_SEGMENT
"""What becomes one segment at the most, so that catching up takes bounded steps too."""


@dataclass(frozen=True, slots=True)
class Segment:
    """What is known of a segment without opening it.

    Args:
        pages: How many pages it names.
        entries: How many entries it has.
        parts: Into how many parts these are cut.
        last_at: The latest start of a run that is known, in milliseconds since 1970; None where none is.
        has_timeless: Whether there are pages of runs whose start is not known.
    """

    pages: int
    entries: int
    parts: int
    last_at: int | None
    has_timeless: bool

    @property
    def blocks(self) -> int:
        """In how many blocks its pages lie."""
        return -(-self.pages // PAGES_PER_BLOCK)

    @property
    def size(self) -> int:
        """How much a merge has to do for it: entries, and pages as if they were small ones."""
        return max(self.entries, self.pages * (ENTRIES_PER_SEGMENT // PAGES_PER_SEGMENT))

    def may_have(self, since: int | None) -> bool:
        """Whether it may name a page of a run that started then or later."""
        return since is None or self.has_timeless or (self.last_at is not None and self.last_at >= since)

    def is_gone(self, oldest: int | None, *, timeless_left: bool) -> bool:
        """Whether all of its pages were removed, given that the oldest go first.

        Args:
            oldest: The earliest start of a page that there is, in milliseconds since 1970; None where there is none.
            timeless_left: Whether there is a page without a start.
        """
        known_are_gone = self.last_at is None or oldest is None or self.last_at < oldest
        return known_are_gone and not (self.has_timeless and timeless_left)


@dataclass(frozen=True, slots=True)
class Built:
    """A segment with all that it has.

    Args:
        segment: What is known of it.
        parts: Its entries; see ``entries.py``.
        blocks: Its pages; see ``pages.py``.
    """

    segment: Segment
    parts: Sequence[bytes]
    blocks: Sequence[bytes]


@dataclass(slots=True)
class Collected:
    """Pages on their way into a segment; of a page that comes twice the hashes of both count."""

    places: dict[tuple[int | str, int], int] = field(default_factory=dict)
    pages: list[Place] = field(default_factory=list)
    entries: set[int] = field(default_factory=set)

    def add(self, page: Listed) -> None:
        """Take a page."""
        self.entries.update(entries_of(page.hashes, self.place(page.place)))

    def place(self, page: Place) -> int:
        """The place of a page, given where it has none."""
        found = self.places.setdefault(page.key, len(self.pages))
        if found == len(self.pages):
            self.pages.append(page)
        elif page.start != self.pages[found].start:
            self.pages[found] = Place(page.stage, page.page, None)  # who looks it up asks the stage
        return found


def is_worth_a_segment(pages: int, entries: int) -> bool:
    """Whether so much in records is to become a segment."""
    return pages >= PAGES_PER_SEGMENT or entries >= ENTRIES_PER_SEGMENT


def is_too_much(pages: int, entries: int) -> bool:
    """Whether so much in records is more than to become one segment at once."""
    return pages > PAGES_AT_ONCE or entries > ENTRIES_AT_ONCE


def build(pages: Iterable[Listed]) -> Built:
    """A segment of some pages, no more than fit into one."""
    collected = Collected()
    for page in pages:
        collected.add(page)
    return _built(collected.pages, list(cut(sorted(collected.entries))), len(collected.entries))


def to_merge(segments: Mapping[int, Segment]) -> list[int]:
    """The segments that are to become one, the oldest first; empty where nothing is to be merged.

    Args:
        segments: All segments by number; a younger one has a greater number.
    """
    levels: dict[int, list[int]] = {}
    for number in sorted(segments):
        levels.setdefault(_level(segments[number]), []).append(number)
    for _, numbers in sorted(levels.items()):
        if len(numbers) < FAN_OUT:
            continue
        for start in range(len(numbers)):
            chosen = _fitting([segments[number] for number in numbers[start : start + FAN_OUT]])
            if chosen > 1:
                return numbers[start : start + chosen]
    return []


def _level(segment: Segment) -> int:
    return max(0, math.floor(math.log(max(segment.size / ENTRIES_PER_SEGMENT, 1), FAN_OUT) + 1e-9))


def _fitting(segments: Sequence[Segment]) -> int:
    """How many of the first of some segments fit into one."""
    pages = entries = 0
    for count, segment in enumerate(segments):
        pages, entries = pages + segment.pages, entries + segment.entries
        if pages > MAX_PAGES or entries > MAX_ENTRIES:
            return count
    return len(segments)


def merge(segments: Sequence[Built]) -> Built:
    """One segment with what several have, part by part: what is unpacked at a time is small.

    Args:
        segments: The segments; together they fit into one.
    """
    collected = Collected()
    moved: list[Sequence[int] | int] = []
    for built in segments:
        first = len(collected.pages)
        places = [collected.place(page) for block in built.blocks for page in unpack_places(block)]
        moved.append(first if places == list(range(first, first + len(places))) else places)
    count = sum(built.segment.entries for built in segments)
    parts = count_of_parts(count)
    readers = [_Ascending(built) for built in segments]
    packed, kept = [], 0
    for part in range(parts):
        low, high = bounds_of(part, parts)
        entries: set[int] = set()
        for reader, to in zip(readers, moved, strict=True):
            some = reader.between(low, high)
            if isinstance(to, int):
                entries.update([entry + to for entry in some])
            else:
                entries.update([entry & ~PLACES | to[entry & PLACES] for entry in some])
        packed.append(pack(sorted(entries), part, parts))
        kept += len(entries)
    return _built(collected.pages, packed, kept)


class _Ascending:
    """The entries of a segment, range after range."""

    def __init__(self, built: Built) -> None:
        self._parts = built.parts
        self._number = -1
        self._entries: list[int] = []

    def between(self, low: int, high: int) -> Iterator[int]:
        """The entries from one up to another; ranges are asked for in ascending order."""
        count = len(self._parts)
        for number in range(
            part_of(low >> PLACE_BITS, count), min(part_of((high - 1) >> PLACE_BITS, count), count - 1) + 1
        ):
            if number != self._number:
                self._number, self._entries = number, unpack(self._parts[number])
            start = bisect_left(self._entries, low)
            yield from self._entries[start : bisect_left(self._entries, high, start)]


def _built(pages: Sequence[Place], parts: Sequence[bytes], entries: int) -> Built:
    starts = [page.start for page in pages]
    blocks = [pack_places(pages[start : start + PAGES_PER_BLOCK]) for start in range(0, len(pages), PAGES_PER_BLOCK)]
    last_at = max((start for start in starts if start is not None), default=None)
    return Built(Segment(len(pages), entries, len(parts), last_at, None in starts), parts, blocks)
