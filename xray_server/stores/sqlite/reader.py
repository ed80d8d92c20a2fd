"""Answering scans on one connection, and saying how they are answered."""

from __future__ import annotations

import itertools
import re
import sqlite3
import time
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from xray_server.pages import CandidatePage
from xray_server.query.ast import Field, Reference, Scan
from xray_server.stores.base import Grouped, Row, ScanCut, ScanPlan
from xray_server.stores.sqlite import rows, scans, ties, zones
from xray_server.stores.sqlite.dictionaries import Decompressor
from xray_server.stores.sqlite.grouping import Grouping
from xray_server.stores.sqlite.paths import LOOKS_BEFORE_LISTING, one_id
from xray_server.stores.sqlite.probe import Probe
from xray_server.stores.sqlite.scans import Statement
from xray_server.stores.sqlite.sql import Sql
from xray_server.stores.sqlite.values import WORD, id_text, id_value

now_s = time.monotonic

STEPS_BETWEEN_LOOKS = 10_000
"""Steps of SQLite's machine after which it looks at the clock: well below a millisecond."""

AT_LEAST_S = 0.05
"""How long is read in any case."""

STEPS_AT_ONCE = 10_000
"""What is read without going to another thread: some fifty documents."""

MOST_KINDS = 1000
"""Of so many kinds of scans the statements are kept."""

FEW_PAGES = 2
"""Pages with lower numbers than this one are worth reading for many stages at once."""


class Reader:
    """Reads through one connection; for its thread alone.

    Args:
        connection: The connection.
        decompressor: Of the same file.
    """

    def __init__(self, connection: sqlite3.Connection, decompressor: Decompressor) -> None:
        self._connection = connection
        self._decompressor = decompressor
        self._probe = Probe(connection, decompressor)
        self._grouping = Grouping(connection, self._execute, decompressor)
        self._of_one_id: dict[Hashable, list[tuple[Statement, tuple[int, ...]]]] = {}
        """What a scan for one id asks, and in which order → its statements, and which of their values are the id."""

    def scan(self, project: str, scan: Scan) -> list[Row]:
        """What ``Store.scan`` returns."""
        found: list[Row] = []
        with self._until(scan.deadline, found):
            return self._scan(project, scan, found)

    @contextmanager
    def _until(self, deadline: float | None, found: Sequence[Row] = ()) -> Iterator[None]:
        """Let statements be ended when a deadline comes.

        Raises:
            ScanCut: It came; with what was found until then.
        """
        if deadline is None:
            yield
            return
        # Whoever waited for a reader until then would get nothing, and the same again when asking once more.
        deadline = max(deadline, now_s() + AT_LEAST_S)
        self._connection.set_progress_handler(lambda: now_s() > deadline, STEPS_BETWEEN_LOOKS)
        try:
            yield
        except sqlite3.OperationalError:
            if now_s() <= deadline:
                raise
            raise ScanCut(found) from None
        finally:
            self._connection.set_progress_handler(None, 0)

    def scan_at_once(self, project: str, scan: Scan) -> list[Row] | None:
        """The same in a few steps, or None where that is not enough."""
        looks = iter((False,))
        # A statement's steps are counted on from its last use: the first look may come at any time.
        self._connection.set_progress_handler(lambda: next(looks, True), STEPS_AT_ONCE)
        try:
            return self._scan(project, scan, [])
        except sqlite3.OperationalError:
            return None

    def _scan(self, project: str, scan: Scan, found: list[Row]) -> list[Row]:
        """Add to what is found, row by row."""
        for statement in self._statements(project, scan):
            if statement.path.else_listed is not None:
                self._probe.allow(LOOKS_BEFORE_LISTING)
            try:
                self._add_rows(found, statement, scan)
            except sqlite3.OperationalError:
                if not self._probe.exceeded:
                    raise
                # Few of the first stages fit, although many stages do: begin anew with those that do.
                self._probe.allow(None)
                found.clear()
                return self._listed(project, scan, found)
            finally:
                self._probe.allow(None)
            if len(found) >= scan.limit:
                break
        return found

    def _statements(self, project: str, scan: Scan) -> Iterable[Statement]:
        """The scan's statements; those of a scan for one id are made once, and then take any id."""
        asked = one_id(scan)
        if asked is None:
            return scans.statements(self._connection, project, scan)
        field, text = asked
        kind, value = (project, scan.of, field, scan.sort), id_value(text)
        known = self._of_one_id.get(kind)
        if known is None:
            made = list(scans.statements(self._connection, project, scan))
            if len(self._of_one_id) < MOST_KINDS:
                self._of_one_id[kind] = [
                    (one, tuple(place for place, param in enumerate(one.sql.params) if param == value)) for one in made
                ]
            return made
        return [_with(statement, places, value) for statement, places in known]

    def _listed(self, project: str, scan: Scan, found: list[Row]) -> list[Row]:
        for statement in scans.statements(self._connection, project, scan, listed=True):
            if len(found) < scan.limit:
                self._add_rows(found, statement, scan)
        return found

    def _add_rows(self, found: list[Row], statement: Statement, scan: Scan) -> None:
        table = scans.table_of(scan)
        width = len(table.stored)
        wanted = scan.limit - len(found)
        read: Iterable[tuple[Any, ...]]
        if statement.tied is None:
            read = self._execute(statement.sql.text, (*statement.sql.params, wanted))
        else:
            read = itertools.islice(ties.read(self._execute, statement.tied, wanted), wanted)
        decode, decompressor, values = table.decode, self._decompressor, scans.sort_values
        decides, ends_in_id = statement.decides, statement.ends_in_id
        for row in read:
            # One by one: what was read before it is cut off counts.
            document = decode(row[:width], decompressor)
            of_row = (*row[width:-1], document["id"]) if ends_in_id else values(row[width:])
            found.append(Row(document, of_row, decides))

    def _execute(self, text: str, params: Sequence[Any]) -> sqlite3.Cursor:
        try:
            return self._connection.execute(text, params)
        except sqlite3.OperationalError as error:
            if not _lacks_index(error):
                raise
            # Slower, and right all the same; ``Store.check`` says what is missing.
            return self._connection.execute(_without_hints(text), params)

    def grouped(
        self, project: str, scan: Scan, by: Sequence[Field], span_ms: int | None, numbers: Sequence[Reference]
    ) -> Grouped | None:
        """What ``Store.grouped`` returns."""
        with self._until(scan.deadline):
            return self._grouping.grouped(project, scan, by, span_ms, numbers)

    def pages_of_many(self, project: str, stage_ids: Sequence[str]) -> dict[str, list[CandidatePage]]:
        """What ``Store.pages_of_many`` returns."""
        columns = ", ".join(f"p.{name.strip()}" for name in rows.PAGE_READ.split(","))
        ids = [id_value(stage_id) for stage_id in stage_ids]
        query = f"""
            SELECT s.id, s.run_id, EXISTS (
                SELECT 1 FROM pages AS m WHERE m.row >= (s.row << {rows.PAGE_BITS}) + {FEW_PAGES}
                AND m.row < ((s.row + 1) << {rows.PAGE_BITS})
            ), {columns}
            FROM stages AS s CROSS JOIN pages AS p
                ON p.row >= (s.row << {rows.PAGE_BITS}) AND p.row < (s.row << {rows.PAGE_BITS}) + {FEW_PAGES}
            WHERE s.project = {WORD} AND s.id IN ({", ".join("?" * len(ids))}) ORDER BY p.row
        """
        found: dict[str, list[CandidatePage]] = {stage_id: [] for stage_id in stage_ids}
        by_row: dict[int, CandidatePage] = {}
        for number, run, has_more, *page in self._connection.execute(query, (project, *ids)).fetchall():
            stage_id = id_text(number)
            if has_more:
                found.pop(stage_id, None)
            elif stage_id in found:
                run_id = None if run is None else id_text(run)
                by_row[page[0]] = rows.decode_page(stage_id, run_id, page, self._decompressor)
                found[stage_id].append(by_row[page[0]])
        for row, of_page in zones.read(self._connection, by_row).items():
            by_row[row].zones = of_page
        return found

    def candidate_counts(self, project: str, stage_ids: Sequence[str]) -> dict[str, int]:
        """What ``Store.candidate_counts`` returns."""
        query = f"""
            SELECT s.id, (
                SELECT ifnull(sum(p.candidates), 0) FROM pages AS p
                WHERE p.row >= (s.row << {rows.PAGE_BITS}) AND p.row < ((s.row + 1) << {rows.PAGE_BITS})
            )
            FROM stages AS s WHERE s.project = {WORD} AND s.id IN ({", ".join("?" * len(stage_ids))})
        """
        values = (project, *(id_value(stage_id) for stage_id in stage_ids))
        return {id_text(number): count for number, count in self._connection.execute(query, values)}

    # --- explaining ---------------------------------------------------------------------------------------------

    def explain(self, project: str, scan: Scan) -> ScanPlan:
        """What ``Store.explain`` returns."""
        indexed, said = True, dict[str, str]()
        for statement in scans.statements(self._connection, project, scan):
            one = self._explained(statement, scan)
            indexed &= one.indexed
            # The way to those that have no value to sort by is mostly the same.
            said.setdefault(statement.path.by, one.detail)
        return ScanPlan(indexed, " Then: ".join(said.values()))

    def _explained(self, statement: Statement, scan: Scan) -> ScanPlan:
        path, what = statement.path, scan.of
        try:
            steps = list(self._steps(statement))
        except sqlite3.OperationalError as error:
            if not _lacks_index(error):
                raise
            return ScanPlan(
                indexed=False,
                detail=f"The index {path.index} is missing ({error}), so that many {what} are read in its place; "
                "'xray store check' says how to make it.",
            )
        detail = f"The {what} are found by {path.by}"
        if path.index:
            detail += f" (index {path.index})"
        if not path.narrows:
            detail = f"No index serves the conditions: the {what} are gone through by {path.by}, each of them looked at"
        detail += ", in the order that is asked for." if _is_ordered(steps) else ", and then sorted."
        if any(step.startswith("SCAN") for step in steps):
            return ScanPlan(indexed=False, detail=f"{detail} A whole table is read: {'; '.join(steps)}.")
        return ScanPlan(path.narrows, detail)

    def _steps(self, statement: Statement) -> Iterator[str]:
        """How SQLite gets to the rows, one step after the other, but for looking up words."""
        query = f"EXPLAIN QUERY PLAN {statement.sql.text}"
        for row in self._connection.execute(query, (*statement.sql.params, 1)).fetchall():
            if row[-1] == "SCAN f":  # the rows of the answer, to read their columns
                return
            if re.match(r"(SEARCH|SCAN|USE TEMP)", row[-1]) and " words " not in row[-1]:
                yield row[-1]


def _with(statement: Statement, places: Sequence[int], value: Any) -> Statement:
    """The statement with another value in some places."""
    params = list(statement.sql.params)
    for place in places:
        params[place] = value
    return replace(statement, sql=Sql(statement.sql.text, tuple(params)))


def _is_ordered(steps: list[str]) -> bool:
    return "USE TEMP B-TREE FOR ORDER BY" not in steps


def _lacks_index(error: sqlite3.OperationalError) -> bool:
    return "no such index" in str(error) or "no query solution" in str(error)


def _without_hints(text: str) -> str:
    return re.sub(r" INDEXED BY \w+", "", text)
