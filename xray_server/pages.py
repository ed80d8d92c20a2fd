"""Candidate pages: how a stage's candidates lie in a store.

A stage's candidates are numbered by ``seq`` from 0. Page *n* holds those with ``n * PAGE_SIZE <= seq <
(n + 1) * PAGE_SIZE``: a fixed grid, so that however a sender cuts its events, a candidate has one place, and sending
it again changes nothing. A page has its ids, its distinct reason labels and the range of its scores in the open, for
the store to search by, and all other columns as :mod:`xray_server.packing` packs them.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

import zstandard

from xray.stage_types.base import Columns
from xray_server import packing
from xray_server.checksums import checksums_of
from xray_server.zones import Zones, zones_of

PAGE_SIZE = 256
"""Candidates a page; ``docs/decisions/0006-pages.md`` has the measurement."""

_LEVEL = 3
_local = threading.local()

Ranges = Mapping[str, tuple[float, float]]
"""Column → its lowest and its highest number in a page."""

RANGED = ("score",)
"""The columns whose range a page has in the open."""


class CandidatePage:
    """Up to ``PAGE_SIZE`` candidates of one stage; not changed once it is made.

    The columns are given packed or as a block; each is made of the other when it is asked for.

    Args:
        run_id: The run's id.
        stage_id: The stage's id.
        page: The page's number in the stage, from 0.
        started_at: The start of the run in milliseconds since 1970, for retention; or None where it is not known.
        seqs: The place of each candidate in the stage, ascending.
        ids: The id of each candidate.
        reason_labels: The distinct reason labels, sorted.
        block: The other columns: what :func:`xray_server.packing.pack` gives, zstd-compressed.
        packed: The same before compression, for stores that compress in a way of their own.
        ranges: The ranges of the columns in ``RANGED``, where the page has numbers in them; worked out from the
            columns where they are not given.
        zones: What the page has in the open of the fields that the stage declares as indexed.
    """

    __slots__ = ("_block", "_checksums", "_packed", "_ranges", "ids", "page", "reason_labels", "run_id", "seqs",
                 "stage_id", "started_at", "zones")  # fmt: skip

    def __init__(
        self,
        run_id: str,
        stage_id: str,
        page: int,
        started_at: int | None,
        seqs: Sequence[int],
        ids: Sequence[str],
        reason_labels: Sequence[str],
        block: bytes | None = None,
        *,
        packed: bytes | None = None,
        ranges: Ranges | None = None,
        zones: Zones | None = None,
    ) -> None:
        if block is None and packed is None:
            raise ValueError("A page has its columns as a block, or packed.")
        self.run_id = run_id
        self.stage_id = stage_id
        self.page = page
        self.started_at = started_at
        self.seqs = tuple(seqs)
        self.ids = tuple(ids)
        self.reason_labels = tuple(reason_labels)
        self._block = block
        self._packed = packed
        self._ranges = ranges
        self._checksums: array[int] | None = None
        self.zones: Zones = zones or {}

    @property
    def packed(self) -> bytes:
        """The columns other than the ids, packed."""
        if self._packed is None:
            assert self._block is not None
            self._packed = zstandard.ZstdDecompressor().decompress(self._block)
        return self._packed

    @property
    def block(self) -> bytes:
        """The columns other than the ids, packed and compressed; it says its form and is read by itself."""
        if self._block is None:
            self._block = _compressor().compress(self.packed)
        return self._block

    @property
    def ranges(self) -> Ranges:
        """Column → its lowest and its highest number, for the columns in ``RANGED`` that have one here."""
        if self._ranges is None:
            self._ranges = _ranges(self.columns().values)
        return self._ranges

    @property
    def checksums(self) -> array[int]:
        """The checksum of each id."""
        if self._checksums is None:
            self._checksums = checksums_of(self.ids)
        return self._checksums

    def columns(self, only: Container[str] | None = None) -> Columns:
        """The page's candidates.

        Args:
            only: The columns that are wanted; all by default.
        """
        ids = list(self.ids)
        return Columns(ids, packing.unpack(self.packed, ids, only))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CandidatePage):
            return NotImplemented
        return self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash((self.stage_id, self.page, self.seqs))

    def __reduce__(self) -> tuple[Any, ...]:
        given = (self.run_id, self.stage_id, self.page, self.started_at, self.seqs, self.ids, self.reason_labels)
        return _restored, (*given, self.packed, self._ranges, self.zones)

    def __repr__(self) -> str:
        return f"<CandidatePage {self.page} of stage {self.stage_id}, {len(self.seqs)} candidates>"

    def _identity(self) -> tuple[Any, ...]:
        return (self.run_id, self.stage_id, self.page, self.started_at, self.seqs, self.ids, self.reason_labels,
                self.packed)  # fmt: skip


def paginate(
    run_id: str,
    stage_id: str,
    started_at: int | None,
    columns: Columns,
    from_seq: int = 0,
    *,
    indexed: Iterable[str] = (),
) -> list[CandidatePage]:
    """Cut consecutive candidates into pages.

    Args:
        run_id: The run's id.
        stage_id: The stage's id.
        started_at: The start of the run in milliseconds since 1970.
        columns: The candidates.
        from_seq: The place of the first one in the stage.
        indexed: The paths of the fields that the stage declares as indexed.
    """
    paths = tuple(indexed)
    pages = []
    start = 0
    while start < len(columns):
        page = (from_seq + start) // PAGE_SIZE
        stop = min(len(columns), (page + 1) * PAGE_SIZE - from_seq)
        part = columns if (start, stop) == (0, len(columns)) else columns.slice(start, stop)
        pages.append(_page(run_id, stage_id, page, started_at, range(from_seq + start, from_seq + stop), part, paths))
        start = stop
    return pages


def merge_pages(page: CandidatePage, other: CandidatePage) -> CandidatePage:
    """The candidates of two versions of the same page; where both have a place, ``page`` decides."""
    indexed = {**page.zones, **other.zones}
    if set(other.seqs) <= set(page.seqs) and len(indexed) == len(page.zones):
        return page
    place_of = dict(zip(other.seqs, range(len(page.seqs), len(page.seqs) + len(other.seqs)), strict=True))
    place_of.update(zip(page.seqs, range(len(page.seqs)), strict=True))
    seqs = sorted(place_of)
    columns = join_columns((page, other)).picked([place_of[seq] for seq in seqs])
    return _page(page.run_id, page.stage_id, page.page, page.started_at, seqs, columns, indexed)


def remainder(page: CandidatePage, known: CandidatePage) -> CandidatePage | None:
    """The candidates of a page that another version of it has no place for; None where it has all of them."""
    there = set(known.seqs)
    places = [place for place, seq in enumerate(page.seqs) if seq not in there]
    if not places:
        return None
    columns, seqs = page.columns().picked(places), [page.seqs[place] for place in places]
    return _page(page.run_id, page.stage_id, page.page, page.started_at, seqs, columns, page.zones)


def join_columns(pages: Iterable[CandidatePage], only: Container[str] | None = None) -> Columns:
    """All candidates of consecutive pages as one set of columns.

    Args:
        pages: The pages.
        only: The columns that are wanted; all by default.
    """
    joined = Columns([])
    for page in pages:
        columns = page.columns(only)
        for name in columns.values:
            if name not in joined.values:
                joined.values[name] = [None] * len(joined)
        for name, values in joined.values.items():
            values.extend(columns.column(name))
        joined.candidate_id += columns.candidate_id
    return joined


def _restored(*given: Any) -> CandidatePage:
    return CandidatePage(*given[:7], packed=given[7], ranges=given[8], zones=given[9])


def _page(
    run_id: str,
    stage_id: str,
    page: int,
    started_at: int | None,
    seqs: Sequence[int],
    columns: Columns,
    indexed: Iterable[str],
) -> CandidatePage:
    labels = sorted([label for label in set(columns.values.get("reason_label", ())) if isinstance(label, str)])
    packed = packing.pack(columns.candidate_id, columns.values)
    ids = columns.candidate_id
    ranges, zones = _ranges(columns.values), zones_of(columns.values, indexed)
    return CandidatePage(
        run_id, stage_id, page, started_at, seqs, ids, labels, packed=packed, ranges=ranges, zones=zones
    )


def _ranges(values: Mapping[str, Sequence[Any]]) -> dict[str, tuple[float, float]]:
    found = {}
    for name in RANGED:
        numbers = [value for value in values.get(name, ()) if type(value) in (int, float)]
        if numbers:
            found[name] = (min(numbers), max(numbers))
    return found


def _compressor() -> zstandard.ZstdCompressor:
    """A compressor of this thread's own: making one takes as long as compressing a small page."""
    found: zstandard.ZstdCompressor | None = getattr(_local, "compressor", None)
    if found is None:
        found = _local.compressor = zstandard.ZstdCompressor(level=_LEVEL)
    return found
