"""The index over candidate ids in the SQLite file.

A write of pages adds a record to ``sighting_tail`` in its own transaction. A step of indexing reads in one snapshot,
builds beside the writer, and puts the result in place of what it was built from in one transaction, if all of that is
still there. A look-up sees one state of the file. Pages that were written before the file had this index are its
backlog: searched by their marks until they are indexed, in the order of their rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xray_server.pages import CandidatePage
from xray_server.query.ast import Compare, Field, Test
from xray_server.sightings.entries import id_hash, part_of, places_of
from xray_server.sightings.hunt import SEGMENTS_AT_ONCE, Hunt, sightings_among
from xray_server.sightings.pages import PAGES_PER_BLOCK, Place, unpack_places
from xray_server.sightings.segments import (
    Built,
    Segment,
    build,
    is_too_much,
    is_worth_a_segment,
    merge,
    to_merge,
)
from xray_server.sightings.tail import Listed, listed, needle, pack_tail, records_of, search_tail, unpack_tail
from xray_server.stores.base import Sighting
from xray_server.stores.sqlite import compiler, rows
from xray_server.stores.sqlite.dictionaries import Decompressor
from xray_server.stores.sqlite.rows import PAGE_BITS, STAGES, page_row
from xray_server.stores.sqlite.values import WORD

PART_BITS = 16
"""A part's row is its segment's number, shifted by as many bits, and its own; so is a block's."""

ROWS_PER_READ = 500
BACKLOG_PAGES_AT_ONCE = 1024
"""Pages that have to be opened to be indexed, in one step."""

_SEGMENT = "segment, pages, entries, parts, last_at, has_timeless"


def note(connection: sqlite3.Connection, project: int, pages: Mapping[int, CandidatePage]) -> None:
    """Note that pages came, in the transaction that writes them.

    Args:
        connection: The writer's.
        project: The project's number.
        pages: The pages by their row, each with the candidates that came.
    """
    came = [listed(_place(row, page.started_at), page.checksums) for row, page in pages.items()]
    for record in records_of(came):
        connection.execute(
            "INSERT INTO sighting_tail (project, pages, entries, data) VALUES (?, ?, ?, ?)",
            (project, len(record), sum(map(len, record)), pack_tail(record)),
        )


def _place(row: int, start: int | None) -> Place:
    return Place(row >> PAGE_BITS, row & (1 << PAGE_BITS) - 1, start)


# --- looking up -------------------------------------------------------------------------------------------------


def find(
    connection: sqlite3.Connection,
    decompressor: Decompressor,
    project: str,
    candidate_id: str,
    hunt: Hunt,
    label: str | None,
) -> list[Sighting]:
    """What ``Store.sightings`` returns; in one snapshot of the file."""
    known = id_hash(candidate_id)
    number = _number(connection, project)
    hunt.add(_in_tail(connection, number, known))
    hunt.add(_in_backlog(connection, number, candidate_id))
    segments = _segments(connection, number)
    waiting = hunt.order(segments)
    while True:
        unread = segments[waiting[0]] if waiting else None
        if hunt.is_over(unread):
            return hunt.answer()
        places = hunt.to_open(unread)
        if places:
            hunt.take(sightings_among(_opened(connection, decompressor, number, places, label), candidate_id))
        elif waiting:
            some, waiting = waiting[:SEGMENTS_AT_ONCE], waiting[SEGMENTS_AT_ONCE:]
            hunt.add(_in_segments(connection, {segment: segments[segment] for segment in some}, known))


def _number(connection: sqlite3.Connection, project: str) -> int:
    return int(connection.execute(f"SELECT {WORD}", (project,)).fetchone()[0])


def _segments(connection: sqlite3.Connection, project: int) -> dict[int, Segment]:
    found = connection.execute(f"SELECT {_SEGMENT} FROM sighting_segments WHERE project = ?", (project,)).fetchall()
    return {row[0]: Segment(row[1], row[2], row[3], row[4], bool(row[5])) for row in found}


def _in_tail(connection: sqlite3.Connection, project: int, known: int) -> Iterable[Place]:
    query = "SELECT data FROM sighting_tail WHERE project = ? AND instr(data, ?) > 0"
    for (data,) in connection.execute(query, (project, needle(known))).fetchall():
        yield from search_tail(data, known)


def _in_backlog(connection: sqlite3.Connection, project: int, candidate_id: str) -> list[Place]:
    found = connection.execute('SELECT next, "end" FROM sighting_backlogs WHERE project = ?', (project,)).fetchone()
    if found is None:
        return []
    first, end = found
    condition = compiler.page_condition(Test(Field(("candidate_id",)), Compare("eq", candidate_id)))
    query = f"SELECT row, started_at FROM pages AS p WHERE +project = ? AND row >= ? AND row < ? AND {condition.text}"
    return [_place(*row) for row in connection.execute(query, (project, first, end, *condition.params)).fetchall()]


def _in_segments(connection: sqlite3.Connection, segments: Mapping[int, Segment], known: int) -> Iterable[Place]:
    wanted = [number << PART_BITS | part_of(known, segment.parts) for number, segment in segments.items()]
    found: dict[int, list[int]] = {}
    for row, data in _by_rows(connection, "SELECT row, data FROM sighting_parts WHERE row", wanted):
        for place in places_of(data, known, segments[row >> PART_BITS].parts):
            block = (row >> PART_BITS) << PART_BITS | place // PAGES_PER_BLOCK
            found.setdefault(block, []).append(place % PAGES_PER_BLOCK)
    for row, data in _by_rows(connection, "SELECT row, data FROM sighting_blocks WHERE row", sorted(found)):
        yield from unpack_places(data, found[row])


def _opened(
    connection: sqlite3.Connection,
    decompressor: Decompressor,
    project: int,
    places: Sequence[Place],
    label: str | None,
) -> Iterable[Sighting]:
    """The pages in these places that there are, with their stages, of a pipeline if one is given."""
    # By their rows, and by no index over what else is said of them.
    query, values = f"SELECT row, {STAGES.columns()} FROM stages WHERE +project = ? AND run_id IS NOT NULL", [project]
    if label is not None:
        query, values = f"{query} AND +pipeline_label = ?", [project, _number(connection, label)]
    stages = {
        row[0]: STAGES.decode(row[1:], decompressor)
        for row in _by_rows(connection, f"{query} AND row", sorted({int(place.stage) for place in places}), values)
    }
    wanted = [page_row(int(place.stage), place.page) for place in places if place.stage in stages]
    for row in _by_rows(connection, f"SELECT {rows.PAGE_READ} FROM pages WHERE row", wanted):
        stage = stages[row[0] >> PAGE_BITS]
        yield Sighting(dict(stage), rows.decode_page(stage["id"], stage["run_id"], row, decompressor))


def _by_rows(
    connection: sqlite3.Connection, query: str, wanted: Sequence[int], values: Sequence[object] = ()
) -> Iterable[tuple[Any, ...]]:
    for start in range(0, len(wanted), ROWS_PER_READ):
        some = wanted[start : start + ROWS_PER_READ]
        yield from connection.execute(f"{query} IN ({', '.join('?' * len(some))})", (*values, *some)).fetchall()


# --- indexing ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Step:
    """What one step of indexing is to do.

    Args:
        project: The project's number.
        marks: The records that become a segment.
        records: What is in them.
        backlog: Where the backlog was, and where it is to be, or None.
        pages: The pages of the backlog in between.
        merged: The segments that become one.
        loaded: What they have.
        gone: Segments of which no page is left.
    """

    project: int
    marks: list[int] = field(default_factory=list)
    records: list[bytes] = field(default_factory=list)
    backlog: tuple[int, int] | None = None
    pages: list[Listed] = field(default_factory=list)
    merged: list[int] = field(default_factory=list)
    loaded: list[Built] = field(default_factory=list)
    gone: list[int] = field(default_factory=list)

    def build(self) -> Built | None:
        """The segment that the step makes, if any; the work that needs no connection."""
        if self.loaded:
            return merge(self.loaded)
        pages = [*self.pages, *(page for record in self.records for page in unpack_tail(record))]
        return build(pages) if pages else None


def plan(connection: sqlite3.Connection, decompressor: Decompressor, project: str) -> Step | None:
    """What to do next, in one snapshot of the file; None where there is nothing to do."""
    number = _number(connection, project)
    segments = _segments(connection, number)
    gone = _gone(connection, number, segments)
    if gone:
        return Step(number, gone=gone)
    pages, entries = connection.execute(
        "SELECT ifnull(sum(pages), 0), ifnull(sum(entries), 0) FROM sighting_tail WHERE project = ?", (number,)
    ).fetchone()
    if is_worth_a_segment(pages, entries):
        return _of_tail(connection, number)
    backlog = connection.execute('SELECT next, "end" FROM sighting_backlogs WHERE project = ?', (number,)).fetchone()
    if backlog is not None:
        return _of_backlog(connection, decompressor, number, *backlog)
    chosen = to_merge(segments)
    if chosen:
        return Step(number, merged=chosen, loaded=[_loaded(connection, each, segments[each]) for each in chosen])
    return None


def _gone(connection: sqlite3.Connection, project: int, segments: Mapping[int, Segment]) -> list[int]:
    if not segments:
        return []
    oldest, timeless = connection.execute(
        "SELECT (SELECT min(started_at) FROM pages WHERE project = ?),"
        " EXISTS (SELECT 1 FROM pages WHERE project = ? AND started_at IS NULL)",
        (project, project),
    ).fetchone()
    return [number for number, segment in segments.items() if segment.is_gone(oldest, timeless_left=bool(timeless))]


def _of_tail(connection: sqlite3.Connection, project: int) -> Step:
    step, pages, entries = Step(project), 0, 0
    query = "SELECT mark, pages, entries, data FROM sighting_tail WHERE project = ? ORDER BY mark"
    for mark, count, size, data in connection.execute(query, (project,)):
        pages, entries = pages + count, entries + size
        if step.marks and is_too_much(pages, entries):
            break
        step.marks.append(mark)
        step.records.append(data)
    return step


def _of_backlog(connection: sqlite3.Connection, decompressor: Decompressor, project: int, first: int, end: int) -> Step:
    query = f"SELECT {rows.PAGE_READ} FROM pages WHERE row >= ? AND row < ? AND +project = ? ORDER BY row LIMIT ?"
    found = connection.execute(query, (first, end, project, BACKLOG_PAGES_AT_ONCE)).fetchall()
    pages = [(row[0], rows.decode_page("", None, row, decompressor)) for row in found]
    after = found[-1][0] + 1 if len(found) == BACKLOG_PAGES_AT_ONCE else end
    return Step(
        project,
        backlog=(first, after),
        pages=[listed(_place(row, page.started_at), page.checksums) for row, page in pages],
    )


def _loaded(connection: sqlite3.Connection, number: int, segment: Segment) -> Built:
    bounds = number << PART_BITS, (number + 1) << PART_BITS
    parts, blocks = (
        [
            data
            for (data,) in connection.execute(
                f"SELECT data FROM {table} WHERE row >= ? AND row < ? ORDER BY row", bounds
            )
        ]
        for table in ("sighting_parts", "sighting_blocks")
    )
    return Built(segment, parts, blocks)


def install(connection: sqlite3.Connection, step: Step, built: Built | None) -> None:
    """Put the outcome of a step in place, in a transaction; nothing where another process was faster."""
    for table, column, numbers in (
        ("sighting_tail", "mark", step.marks),
        ("sighting_segments", "segment", [*step.merged, *step.gone]),
    ):
        count = sum(1 for _ in _by_rows(connection, f"SELECT 1 FROM {table} WHERE {column}", numbers))
        if count < len(numbers):
            return
    if step.backlog is not None:
        first, after = step.backlog
        changed = connection.execute(
            "UPDATE sighting_backlogs SET next = ? WHERE project = ? AND next = ?", (after, step.project, first)
        )
        if changed.rowcount == 0:
            return
        connection.execute('DELETE FROM sighting_backlogs WHERE project = ? AND next >= "end"', (step.project,))
    connection.executemany("DELETE FROM sighting_tail WHERE mark = ?", [(mark,) for mark in step.marks])
    for number in (*step.merged, *step.gone):
        connection.execute("DELETE FROM sighting_segments WHERE segment = ?", (number,))
        for table in ("sighting_parts", "sighting_blocks"):
            bounds = number << PART_BITS, (number + 1) << PART_BITS
            connection.execute(f"DELETE FROM {table} WHERE row >= ? AND row < ?", bounds)
    if built is not None:
        _insert(connection, step.project, built)


def _insert(connection: sqlite3.Connection, project: int, built: Built) -> None:
    segment = built.segment
    number = connection.execute(
        "INSERT INTO sighting_segments (project, pages, entries, parts, last_at, has_timeless)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (project, segment.pages, segment.entries, segment.parts, segment.last_at, segment.has_timeless),
    ).lastrowid
    assert number is not None
    for table, many in (("sighting_parts", built.parts), ("sighting_blocks", built.blocks)):
        connection.executemany(
            f"INSERT INTO {table} (row, data) VALUES (?, ?)",
            [(number << PART_BITS | place, data) for place, data in enumerate(many)],
        )
