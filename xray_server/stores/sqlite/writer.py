"""The one thread that writes to the SQLite file.

Batches that wait at the same time share a transaction and its one flush to the disk (*group commit*). Where such a
transaction fails, each of its batches gets one of its own, so that a bad batch fails alone.

Rows are read and inserted by the hundred; ``inserting.py`` says why.
"""

from __future__ import annotations

import functools
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xray.exceptions import StoreError
from xray_server.documents import Document, merge_into
from xray_server.pages import CandidatePage, merge_pages
from xray_server.rollups import changed_buckets
from xray_server.stores.base import Bucket, WriteBatch
from xray_server.stores.encoding import from_json, merge_declarations, to_json
from xray_server.stores.sqlite import rows, sightings, zones
from xray_server.stores.sqlite.dictionaries import Compressor, Decompressor, read_dictionary
from xray_server.stores.sqlite.inserting import in_groups, insert
from xray_server.stores.sqlite.metric_index import IndexRow, MetricIndex
from xray_server.stores.sqlite.rollups import mark_dirty
from xray_server.stores.sqlite.rows import RUNS, STAGES, Table
from xray_server.stores.sqlite.values import Words, id_text, id_value

MAX_BATCHES_PER_TRANSACTION = 256
ROWS_PER_READ = 200
_NOTHING: Document = {}


@dataclass(frozen=True, slots=True)
class Job:
    """One batch to write and whom to tell.

    Args:
        project: The project.
        batch: What to write.
        done: Called in the writer's thread with None when the batch is durable, or with what went wrong.
        new_runs: Filled with the ids of the runs that were not there before.
    """

    project: str
    batch: WriteBatch
    done: Callable[[StoreError | None], None]
    new_runs: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Change:
    """Any other change of the file, inside a transaction; batches may share it.

    Args:
        make: Makes the change. It is undone and made once more where another part of the transaction fails.
        done: Called in the writer's thread with None when the change is durable, or with what went wrong.
    """

    make: Callable[[sqlite3.Connection], object]
    done: Callable[[StoreError | None], None]


class Writer:
    """The writer's thread; it ends after the jobs that were given before :meth:`close`.

    Args:
        connection: Used by this thread only from now on, and closed by it.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._jobs: queue.SimpleQueue[Job | Change | None] = queue.SimpleQueue()
        self._metrics = MetricIndex(connection)
        self._dirty: set[tuple[str, Bucket]] = set()
        self._words = Words(connection)
        self._compressor = Compressor(connection)
        self._decompressor = Decompressor(functools.partial(read_dictionary, connection))
        self._next_row: dict[str, int] = {}
        self._thread = threading.Thread(target=self._run, name="xray-sqlite-writer", daemon=True)
        self._thread.start()

    def submit(self, job: Job | Change) -> None:
        """Put a job at the end of the queue; the caller bounds how many wait."""
        self._jobs.put(job)

    def close(self) -> None:
        """Finish the jobs that were submitted, end the thread and close the connection."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        closing = False
        while not closing:
            waiting = [self._jobs.get()]
            while len(waiting) < MAX_BATCHES_PER_TRANSACTION:
                try:
                    waiting.append(self._jobs.get_nowait())
                except queue.Empty:
                    break
            closing = None in waiting
            self._write_together([job for job in waiting if job is not None])
        self._connection.close()

    def _write_together(self, jobs: Sequence[Job | Change]) -> None:
        if not jobs:
            return
        error = self._transaction(jobs)
        if error is None or len(jobs) == 1:
            for job in jobs:
                job.done(error)
            return
        for job in jobs:
            job.done(self._transaction([job]))

    def _transaction(self, jobs: Sequence[Job | Change]) -> StoreError | None:
        try:
            self._compressor.keep_trained()
            self._dirty.clear()
            self._connection.execute("BEGIN IMMEDIATE")
            self._next_row.clear()
            for job in jobs:
                if isinstance(job, Change):
                    job.make(self._connection)
                else:
                    job.new_runs.clear()
                    self._write(job)
            mark_dirty(self._connection, self._dirty)
            self._connection.execute("COMMIT")
            return None
        except Exception as error:
            # Whatever it was, the sender has to hear that the batch is not stored; the thread goes on.
            self._metrics.forget()
            self._words.forget()
            try:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            except sqlite3.Error as failed:
                return StoreError(f"SQLite could not undo a failed write: {failed}.")
            if isinstance(error, StoreError):
                return error
            return StoreError(f"SQLite could not write: {type(error).__name__}: {error}.")

    # --- one batch, inside a transaction ------------------------------------------------------------------------

    def _write(self, job: Job) -> None:
        batch, project = job.batch, self._words.number(job.project)
        new_runs = self._merge_all(RUNS, job.project, project, batch.runs)[1]
        job.new_runs.update(new_runs)
        if batch.stages or batch.pages:
            stage_rows, new_stages = self._merge_all(STAGES, job.project, project, batch.stages)
            if batch.pages:
                self._merge_pages(job.project, project, batch, stage_rows, new_stages)
        for stage_type, declared in batch.declarations.items():
            self._merge_declarations(job.project, stage_type, declared)

    # --- documents ----------------------------------------------------------------------------------------------

    def _merge_all(
        self, table: Table, project: str, number: int, partials: Mapping[str, Document]
    ) -> tuple[dict[str, int], set[str]]:
        """Merge partial documents into their rows; the row of each id, and the ids that are new."""
        there = self._read(table, number, partials) if partials else {}
        rows_of: dict[str, int] = {}
        new: list[list[Any]] = []
        changed: list[list[Any]] = []
        dropped: list[IndexRow] = []
        added: list[IndexRow] = []
        for document_id, partial in partials.items():
            row, before = there.get(document_id, (None, _NOTHING))
            after = merge_into({**before, "id": document_id}, partial)
            if row is not None and after == before:
                rows_of[document_id] = row
                continue
            compress = rows.compressed_document(self._compressor, table, project, after)
            values = table.encode(after, self._words, compress)
            if row is None:
                row = self._new_row(table)
                new.append([row, number, *values])
            else:
                changed.append([*values, row])
            rows_of[document_id] = row
            if table is not STAGES:
                continue
            self._dirty.update([(project, bucket) for bucket in changed_buckets(before, after)])
            old, now = before.get("metrics"), after.get("metrics")
            if old != now:
                dropped += self._metrics.rows(number, row, old)
                added += self._metrics.rows(number, row, now)
        marks = ", ".join(f'"{name}" = ?' for name in table.stored)
        self._connection.executemany(f"UPDATE {table.name} SET {marks} WHERE row = ?", changed)
        insert(self._connection, table.name, ("row", "project", *table.stored), new)
        self._metrics.change(dropped, added)
        return rows_of, partials.keys() - there.keys()

    def _read(self, table: Table, project: int, ids: Iterable[str]) -> dict[str, tuple[int, Document]]:
        """The documents that there are of these ids, with their rows."""
        found: dict[str, tuple[int, Document]] = {}
        for some in in_groups([id_value(one) for one in ids], ROWS_PER_READ):
            padded = some + [None] * (ROWS_PER_READ - len(some))  # one statement for any number, prepared once
            query = (
                f"SELECT row, {table.columns()} FROM {table.name}"
                f" WHERE project = ? AND id IN ({', '.join('?' * ROWS_PER_READ)})"
            )
            for row in self._connection.execute(query, (project, *padded)).fetchall():
                document = table.decode(row[1:], self._decompressor)
                found[document["id"]] = (row[0], document)
        return found

    def _new_row(self, table: Table) -> int:
        number = self._next_row.get(table.name)
        if number is None:
            query = f"SELECT ifnull(max(row), 0) + 1 FROM {table.name}"
            number = int(self._connection.execute(query).fetchone()[0])
        self._next_row[table.name] = number + 1
        return number

    # --- candidates ---------------------------------------------------------------------------------------------

    def _merge_pages(
        self, project: str, number: int, batch: WriteBatch, stage_rows: dict[str, int], new_stages: set[str]
    ) -> None:
        strays = {page.stage_id for page in batch.pages} - stage_rows.keys()
        if strays:
            new_stages |= self._find_stages(number, strays, stage_rows)
        pages: dict[int, CandidatePage] = {}
        for page in batch.pages:
            row = rows.page_row(stage_rows[page.stage_id], page.page)
            pages[row] = merge_pages(pages[row], page) if row in pages else page
        came = dict(pages)
        old = [row for row, page in pages.items() if page.stage_id not in new_stages]
        there = self._read_pages({row: pages[row] for row in old})
        for row, page in there.items():
            merged = merge_pages(page, pages.pop(row))
            if merged is not page:
                pages[row] = merged
        values = []
        for row, page in pages.items():
            stage = batch.stages.get(page.stage_id) or {}
            run_id = stage.get("run_id") if page.stage_id in new_stages else None
            kind = ("page", project, (stage.get("pipeline") or {}).get("label") or "", stage.get("name") or "")
            compress = functools.partial(self._compressor.compress, kind)
            values.append(rows.encode_page(page, row, number, run_id, compress))
        replaced = [(row,) for row in there.keys() & pages.keys()]
        if replaced:
            self._connection.executemany("DELETE FROM pages WHERE row = ?", replaced)
        insert(self._connection, "pages", rows.PAGE_COLUMNS, values)
        zones.keep(self._connection, self._words.number, {row: page.zones for row, page in pages.items()})
        sightings.note(self._connection, number, {row: came[row] for row in pages})

    def _find_stages(self, project: int, ids: set[str], stage_rows: dict[str, int]) -> set[str]:
        """Add the rows of stages of which nothing but pages came; those that are not there get an empty one."""
        for some in in_groups([id_value(one) for one in ids], ROWS_PER_READ):
            query = f"SELECT id, row FROM stages WHERE project = ? AND id IN ({', '.join('?' * len(some))})"
            stage_rows.update((id_text(found), row) for found, row in self._connection.execute(query, (project, *some)))
        missing = ids - stage_rows.keys()
        for stage_id in missing:
            stage_rows[stage_id] = self._new_row(STAGES)
        empty = [(stage_rows[stage_id], project, id_value(stage_id)) for stage_id in missing]
        insert(self._connection, "stages", ("row", "project", "id"), empty)
        return missing

    def _read_pages(self, wanted: Mapping[int, CandidatePage]) -> dict[int, CandidatePage]:
        """The pages that there are in the places of those that came; a page that came is of the same run."""
        found: dict[int, CandidatePage] = {}
        for some in in_groups(list(wanted), ROWS_PER_READ):
            query = f"SELECT {rows.PAGE_READ} FROM pages WHERE row IN ({', '.join('?' * len(some))})"
            for row in self._connection.execute(query, some).fetchall():
                page = wanted[row[0]]
                found[row[0]] = rows.decode_page(page.stage_id, page.run_id, row, self._decompressor)
        for row, of_page in zones.read(self._connection, found).items():
            found[row].zones = of_page
        return found

    def _merge_declarations(self, project: str, stage_type: str, declared: list[dict[str, Any]]) -> None:
        found = self._connection.execute(
            "SELECT metrics FROM declarations WHERE project = ? AND stage_type = ?", (project, stage_type)
        ).fetchone()
        there = from_json(found[0]) if found else []
        merged = merge_declarations(there, declared)
        if merged != there:
            self._connection.execute(
                "INSERT INTO declarations (project, stage_type, metrics) VALUES (?, ?, ?)"
                " ON CONFLICT (project, stage_type) DO UPDATE SET metrics = excluded.metrics",
                (project, stage_type, to_json(merged)),
            )
