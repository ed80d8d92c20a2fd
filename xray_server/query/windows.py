"""Going on where a store's time was up before it had found anything: window by window, back in time.

A scan that passes over very many documents and finds none has nothing that a cursor could go on behind. Its latest
hours alone take less time; once they are gone through, the cursor goes on before them. (The spans in which a store may
read a scan are its own affair: they bound what one scan reads, these windows what is gone through before an answer.)
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from xray_server.query import ast
from xray_server.query.sorting import DEFAULT_SORT
from xray_server.stores.base import Row, ScanCut, Store

now_s = time.monotonic

FIRST_MS = 3_600_000
"""How long the first window is."""

SHORTEST_MS = 1000
GROWTH, SHRINKING = 4, 8
"""How many times longer the next window is where one took little time, and shorter where it took too much."""

PARTS = 4
"""Of the time that is left a window may take one of so many parts."""

_STARTED_AT = ast.Field(("started_at",))
_EARLIEST = (ast.SortKey(_STARTED_AT), ast.SortKey(ast.Field(("id",))))
_EVER = 2**62
_FIRST_ID = ""
"""Comes before every id: behind it in the order of a scan comes what began earlier."""


def first_deadline(scan: ast.Scan, deadline: float) -> float:
    """Until when the whole scan is tried: half of the time that is left, where windows may need the other half.

    Args:
        scan: The scan.
        deadline: When all has to end, by the monotonic clock.
    """
    return deadline - max(0.0, deadline - now_s()) / 2 if _has_windows(scan) else deadline


async def pass_over(
    store: Store, project: str, scan: ast.Scan, cut: ScanCut, deadline: float
) -> tuple[Sequence[Row], tuple[Any, ...] | None]:
    """Go on with a scan that was cut off with nothing found.

    Args:
        store: The store, open.
        project: The project.
        scan: The scan.
        cut: What cut it off.
        deadline: When to stop, by the monotonic clock.

    Returns:
        The first rows that were found; else none, and what the next scan's ``after`` has to be.

    Raises:
        ScanCut: Not even the shortest window was gone through.
        StoreError: The data could not be read.
    """
    if not _has_windows(scan):
        raise cut
    top, end = await _bounds(store, project, scan, deadline)
    after, width = scan.after, FIRST_MS
    passed: tuple[Any, ...] | None = None
    while top >= end and width >= SHORTEST_MS and (left_s := deadline - now_s()) > 0:
        bottom = top - width
        until = deadline - left_s * (PARTS - 1) / PARTS
        try:
            rows = await store.scan(project, _since(replace(scan, after=after, deadline=until), bottom))
        except ScanCut as again:
            if again.rows:
                return again.rows, None
            width //= SHRINKING
            continue
        if rows:
            return rows, None
        top, after = bottom, (bottom, _FIRST_ID)
        passed = after
        if until - now_s() > left_s / PARTS / 2:
            width *= GROWTH
    if passed is None:
        raise cut
    return [], passed


def _has_windows(scan: ast.Scan) -> bool:
    """Whether a scan goes back in time, and has not come yet to what has no start."""
    return scan.sort == DEFAULT_SORT and (scan.after is None or scan.after[0] is not None)


async def _bounds(store: Store, project: str, scan: ast.Scan, deadline: float) -> tuple[int, int]:
    """The latest start that the scan may find, and the earliest one; the wrong way round where there is none."""
    scan_one = ast.Scan(scan.of, sort=DEFAULT_SORT, limit=1, deadline=deadline)
    earliest = await store.scan(project, _since(replace(scan_one, sort=_EARLIEST), -_EVER))
    if not earliest:
        return -1, 0
    end = int(earliest[0].sort_values[0])
    if scan.after is not None:
        return int(scan.after[0]), end
    latest = await store.scan(project, _since(scan_one, -_EVER))
    return (int(latest[0].sort_values[0]) if latest else end), end


def _since(scan: ast.Scan, start: int) -> ast.Scan:
    """The scan of what began then or later alone."""
    began = ast.Test(_STARTED_AT, ast.Compare("gte", start))
    if scan.of == "stages":
        return replace(scan, stage=ast.And((scan.stage, began)))
    return replace(scan, pipeline=ast.And((scan.pipeline, began)))
