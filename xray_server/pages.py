"""Candidate pages: how a stage's candidates lie in a store.

A stage's candidates are numbered by ``seq`` from 0. Page *n* holds those with ``n * PAGE_SIZE <= seq <
(n + 1) * PAGE_SIZE``: a fixed grid, so that however a sender cuts its events, a candidate has one place, and sending
it again changes nothing. A page has its ids and its distinct reason labels in the open, for the store to search by,
and all other columns in one compressed block.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
import zstandard

from xray.stage_types.base import Columns

PAGE_SIZE = 256
"""Candidates a page. To be settled by measurement together with the compression level."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


@dataclass(frozen=True, slots=True)
class CandidatePage:
    """Up to ``PAGE_SIZE`` candidates of one stage.

    Args:
        run_id: The run's id.
        stage_id: The stage's id.
        page: The page's number in the stage, from 0.
        started_at: The start of the run in milliseconds since 1970, for retention; or None where it is not known.
        seqs: The place of each candidate in the stage, ascending.
        ids: The id of each candidate.
        reason_labels: The distinct reason labels, sorted.
        block: The other columns: zstd-compressed msgpack of ``{column: [value, …]}``.
    """

    run_id: str
    stage_id: str
    page: int
    started_at: int | None
    seqs: tuple[int, ...]
    ids: tuple[str, ...]
    reason_labels: tuple[str, ...]
    block: bytes

    def columns(self) -> Columns:
        """The page's candidates, decompressed."""
        values = _decode(zstandard.ZstdDecompressor().decompress(self.block))
        return Columns(list(self.ids), values)


def paginate(
    run_id: str, stage_id: str, started_at: int | None, columns: Columns, from_seq: int = 0
) -> list[CandidatePage]:
    """Cut consecutive candidates into pages.

    Args:
        run_id: The run's id.
        stage_id: The stage's id.
        started_at: The start of the run in milliseconds since 1970.
        columns: The candidates.
        from_seq: The place of the first one in the stage.
    """
    pages = []
    start = 0
    while start < len(columns):
        page = (from_seq + start) // PAGE_SIZE
        stop = min(len(columns), (page + 1) * PAGE_SIZE - from_seq)
        seqs = tuple(range(from_seq + start, from_seq + stop))
        pages.append(_page(run_id, stage_id, page, started_at, seqs, columns.slice(start, stop)))
        start = stop
    return pages


def merge_pages(page: CandidatePage, other: CandidatePage) -> CandidatePage:
    """The candidates of two versions of the same page; where both have a place, ``page`` decides."""
    if set(other.seqs) <= set(page.seqs):
        return page
    by_seq: dict[int, dict[str, Any]] = {}
    for source in (other, page):
        by_seq.update(zip(source.seqs, source.columns().rows(), strict=True))
    seqs = tuple(sorted(by_seq))
    columns = Columns.from_rows([by_seq[seq] for seq in seqs])
    return _page(page.run_id, page.stage_id, page.page, page.started_at, seqs, columns)


def join_columns(pages: Iterable[CandidatePage]) -> Columns:
    """All candidates of consecutive pages as one set of columns."""
    rows = [row for page in pages for row in page.columns().rows()]
    return Columns.from_rows(rows)


def _page(
    run_id: str, stage_id: str, page: int, started_at: int | None, seqs: tuple[int, ...], columns: Columns
) -> CandidatePage:
    used = {name: values for name, values in columns.values.items() if any(value is not None for value in values)}
    labels = sorted({label for label in used.get("reason_label", ()) if isinstance(label, str)})
    return CandidatePage(
        run_id=run_id,
        stage_id=stage_id,
        page=page,
        started_at=started_at,
        seqs=seqs,
        ids=tuple(columns.candidate_id),
        reason_labels=tuple(labels),
        block=zstandard.ZstdCompressor(level=3).compress(_encode(used)),
    )
