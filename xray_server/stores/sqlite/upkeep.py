"""Retention in the SQLite file: what it takes, what is old, and how that is removed and given back.

Every function that changes something runs inside a transaction of the writer's thread.
"""

from __future__ import annotations

import functools
import heapq
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from xray.ids import id_time_ms, now_ms
from xray_server.documents import Document
from xray_server.rollups import HOUR_MS
from xray_server.stores.base import Removed, Usage
from xray_server.stores.sqlite.dictionaries import Decompressor, read_dictionary
from xray_server.stores.sqlite.rollups import remove_older
from xray_server.stores.sqlite.rows import PAGE_BITS, STAGES, metric_rows, page_row
from xray_server.stores.sqlite.values import WORD, id_text

EXACT_UP_TO = 10_000
"""Rows that are counted; the numbers of larger tables are estimated from their first and last row."""

ROWS_PER_CHANGE = 500
"""Stages and pages that go with their runs in one transaction, at the most; a large run takes several."""

PAGES_PER_RECLAIM = 64
"""File pages that are given back in one transaction."""

_HAS_TIME = "(typeof(id) = 'blob' AND substr(hex(id), 13, 1) = '7')"
"""Whether an id begins with the time at which it was made: a UUID of version 7."""


def projects(connection: sqlite3.Connection) -> list[str]:
    """What ``Store.projects`` returns: a step in an index for each project, not for each row."""
    found: set[int] = set()
    for table in ("runs", "stages", "pages"):
        query = f"""
            WITH RECURSIVE known (project) AS (
                SELECT min(project) FROM {table}
                UNION ALL SELECT (SELECT min(project) FROM {table} WHERE project > known.project) FROM known
                WHERE known.project IS NOT NULL
            ) SELECT project FROM known WHERE project IS NOT NULL
        """
        found.update(row[0] for row in connection.execute(query))
    marks = ", ".join("?" * len(found))
    return sorted(
        text for (text,) in connection.execute(f"SELECT text FROM words WHERE word IN ({marks})", tuple(found))
    )


def usage(connection: sqlite3.Connection, path: Path) -> Usage:
    """What ``Store.usage`` returns."""
    pages, free, page_bytes = (_pragma(connection, name) for name in ("page_count", "freelist_count", "page_size"))
    log = path.with_name(path.name + "-wal")
    log_bytes = log.stat().st_size if log.exists() else 0
    runs, stages, candidate_pages = (_count(connection, table) for table in ("runs", "stages", "pages"))
    return Usage((pages - free) * page_bytes + log_bytes, runs, stages, candidate_pages)


def _count(connection: sqlite3.Connection, table: str) -> int:
    first, last = connection.execute(
        f"SELECT (SELECT min(row) FROM {table}), (SELECT max(row) FROM {table})"
    ).fetchone()
    if first is None:
        return 0
    if table == "pages" and (last - first) >> PAGE_BITS >= EXACT_UP_TO:
        # Rows of pages have gaps: as many pages a stage as the last stages have.
        sample = f"SELECT row FROM pages ORDER BY row DESC LIMIT {EXACT_UP_TO}"
        count, lowest = connection.execute(f"SELECT count(*), min(row) FROM ({sample})").fetchone()
        return int(count * ((last - first) / (last - lowest + 1)))
    if table != "pages" and last - first >= EXACT_UP_TO:
        return int(last - first + 1)
    return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


# --- candidate pages --------------------------------------------------------------------------------------------


def removable_pages(connection: sqlite3.Connection, project: str, before: int | None) -> Removed:
    """What :func:`remove_pages` would remove without a limit."""
    where, values = f"project = {WORD}", list[object]([project])
    if before is not None:
        where, values = f"project = {WORD} AND ifnull(started_at < ?, 1)", [project, before]
    pages, stages, candidates, up_to = connection.execute(
        f"SELECT count(*), count(DISTINCT row >> {PAGE_BITS}), ifnull(sum(candidates), 0), max(started_at)"
        f" FROM pages WHERE {where}",
        values,
    ).fetchone()
    return Removed(stages=stages, pages=pages, candidates=candidates, up_to=up_to)


def remove_pages(connection: sqlite3.Connection, project: str, before: int | None, limit: int, now: int) -> Removed:
    """What ``Store.remove_candidates`` does; ``now`` is what the stages say, in milliseconds since 1970."""
    columns = f"row, row >> {PAGE_BITS}, started_at, candidates"
    # Two statements, because an index serves each of them and not their union.
    found = connection.execute(
        f"SELECT {columns} FROM pages WHERE project = {WORD} AND started_at IS NULL ORDER BY row LIMIT ?",
        (project, limit),
    ).fetchall()
    if len(found) < limit:
        found += connection.execute(
            f"SELECT {columns} FROM pages WHERE project = {WORD} AND started_at < ? ORDER BY started_at, row LIMIT ?",
            (project, 2**63 - 1 if before is None else before, limit - len(found)),
        ).fetchall()
    _delete_pages(connection, found, now)
    return Removed(
        stages=len({row[1] for row in found}),
        pages=len(found),
        candidates=sum(row[3] for row in found),
        up_to=max((row[2] for row in found if row[2] is not None), default=None),
    )


def _delete_pages(connection: sqlite3.Connection, pages: Sequence[tuple[int, int, int | None, int]], now: int) -> None:
    connection.executemany(
        "UPDATE stages SET candidates_removed_at = ? WHERE row = ?",
        [(now, stage) for stage in {page[1] for page in pages}],
    )
    connection.executemany("DELETE FROM pages WHERE row = ?", [(page[0],) for page in pages])


# --- runs -------------------------------------------------------------------------------------------------------


def removable_runs(connection: sqlite3.Connection, project: str, before: int | None) -> Removed:
    """What :func:`remove_runs` would remove without a limit."""
    if before is None:
        old, values = "", []
    else:
        old = f" AND (started_at < ? OR (started_at IS NULL AND {_HAS_TIME} AND id < ?))"
        values = [before, _id_prefix(before)]
    runs, up_to = connection.execute(
        f"SELECT count(*), max(started_at) FROM runs WHERE project = {WORD}{old}", (project, *values)
    ).fetchone()
    ids = f"SELECT id FROM runs WHERE project = {WORD}{old}"
    stages = f"SELECT row FROM stages WHERE project = {WORD} AND run_id IN ({ids})"
    stage_count = connection.execute(f"SELECT count(*) FROM ({stages})", (project, project, *values)).fetchone()[0]
    pages, candidates = connection.execute(
        f"SELECT count(*), ifnull(sum(p.candidates), 0) FROM ({stages}) AS s"
        f" JOIN pages AS p ON p.row >= (s.row << {PAGE_BITS}) AND p.row < ((s.row + 1) << {PAGE_BITS})",
        (project, project, *values),
    ).fetchone()
    newest = connection.execute(
        f"SELECT max(id) FROM runs WHERE project = {WORD}{old} AND started_at IS NULL AND {_HAS_TIME}",
        (project, *values),
    ).fetchone()[0]
    times = [time for time in (up_to, newest and id_time_ms(id_text(newest))) if time is not None]
    return Removed(runs, stage_count, pages, candidates, max(times, default=None))


def remove_runs(connection: sqlite3.Connection, project: str, before: int | None, limit: int) -> tuple[Removed, bool]:
    """What ``Store.remove_runs`` does, as far as it is to be done in one transaction.

    Returns:
        What was removed, and whether a run was too large to be removed whole: the next call goes on with it.
    """
    total, more = _remove_oldest(connection, project, _oldest_runs(connection, project, before, limit))
    if total.runs:
        left = _oldest_runs(connection, project, None, 1, timed=True)
        # A bucket goes where all of its hour lies before the first run that is left.
        remove_older(connection, project, (left[0][0] or 0) // HOUR_MS * HOUR_MS if left else None)
    return total, more


def _remove_oldest(
    connection: sqlite3.Connection, project: str, runs: Sequence[tuple[int | None, bytes | str]]
) -> tuple[Removed, bool]:
    total = Removed()
    room = ROWS_PER_CHANGE
    decompressor = Decompressor(functools.partial(read_dictionary, connection))
    for started_at, run_id in runs:
        if room <= 0:
            return total, True
        stages = connection.execute(
            f"SELECT row, {STAGES.columns()} FROM stages WHERE project = {WORD} AND run_id = ? LIMIT ?",
            (project, run_id, room),
        ).fetchall()
        for row, *columns in stages:
            pages = connection.execute(
                f"SELECT row, row >> {PAGE_BITS}, started_at, candidates FROM pages"
                " WHERE row >= ? AND row < ? ORDER BY row LIMIT ?",
                (page_row(row, 0), page_row(row + 1, 0), room),
            ).fetchall()
            _delete_pages(connection, pages, now_ms())
            total += Removed(pages=len(pages), candidates=sum(page[3] for page in pages))
            room -= len(pages)
            if room <= 0:
                return total, True
            _delete_metrics(connection, project, row, STAGES.decode(columns, decompressor))
            connection.execute("DELETE FROM stages WHERE row = ?", (row,))
            total += Removed(stages=1)
            room -= 1
        if room <= 0:
            return total, True
        connection.execute(f"DELETE FROM runs WHERE project = {WORD} AND id = ?", (project, run_id))
        total += Removed(runs=1, up_to=started_at)
        room -= 1
    return total, False


def _delete_metrics(connection: sqlite3.Connection, project: str, row: int, stage: Document) -> None:
    """Take a stage's metrics out of their tree, which is by metric and value."""
    metric = f"(SELECT metric FROM metric_names WHERE project = {WORD} AND name = ?)"
    connection.executemany(
        f"DELETE FROM stage_metrics WHERE metric = {metric} AND value = ? AND stage = ?",
        [
            (project, name if key is None else f"{name}.{key}", value, row)
            for name, key, value in metric_rows(stage.get("metrics") or {})
        ],
    )


def _oldest_runs(
    connection: sqlite3.Connection, project: str, before: int | None, limit: int, *, timed: bool = False
) -> list[tuple[int | None, bytes | str]]:
    """The start and the id of the oldest runs; those whose age nobody can tell come first, and only without a bound."""
    found: list[tuple[int | None, bytes | str]] = []
    if before is None and not timed:
        found = connection.execute(
            f"SELECT NULL, id FROM runs WHERE project = {WORD} AND started_at IS NULL AND NOT {_HAS_TIME} LIMIT ?",
            (project, limit),
        ).fetchall()
    end = 2**48 - 1 if before is None else before
    by_start = connection.execute(
        f"SELECT started_at, id FROM runs WHERE project = {WORD} AND started_at < ? ORDER BY started_at, id LIMIT ?",
        (project, 2**63 - 1 if before is None else before, limit),
    ).fetchall()
    by_id = connection.execute(
        f"SELECT id FROM runs WHERE project = {WORD} AND started_at IS NULL AND {_HAS_TIME} AND id < ?"
        " ORDER BY id LIMIT ?",
        (project, _id_prefix(end), limit),
    ).fetchall()
    found += heapq.merge(by_start, ((id_time_ms(id_text(run_id)), run_id) for (run_id,) in by_id))
    return found[:limit]


def _id_prefix(time_ms: int) -> bytes:
    """What every id that was made at this time, in milliseconds since 1970, or later is greater than."""
    return min(max(time_ms, 0), 2**48 - 1).to_bytes(6, "big")


# --- giving back ------------------------------------------------------------------------------------------------


def free_some_pages(connection: sqlite3.Connection) -> bool:
    """Cut some free pages off the file's end; whether there may be more."""
    before = _pragma(connection, "freelist_count")
    connection.execute(f"PRAGMA incremental_vacuum({PAGES_PER_RECLAIM})").fetchall()
    return 0 < _pragma(connection, "freelist_count") < before


def shorten_log(connection: sqlite3.Connection) -> None:
    """Bring the log into the file, which then takes its new length, and cut the log if nobody is using it."""
    # The transaction that a reader is given has not begun to read yet; after that this would not be allowed.
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    # The rest is short, and not waited for: that would keep writers waiting too.
    timeout_ms = _pragma(connection, "busy_timeout")
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        connection.execute(f"PRAGMA busy_timeout = {timeout_ms}")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
