"""The one thread that writes to the SQLite file.

Batches that wait at the same time share a transaction and its one flush to the disk (*group commit*). Where such a
transaction fails, each of its batches gets one of its own, so that a bad batch fails alone.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xray.exceptions import StoreError
from xray_server.documents import Document, merge_into
from xray_server.pages import CandidatePage, merge_pages
from xray_server.rollups import changed_buckets
from xray_server.stores.base import Bucket, WriteBatch
from xray_server.stores.encoding import from_json, merge_declarations, to_json
from xray_server.stores.sqlite import rows
from xray_server.stores.sqlite.rollups import mark_dirty
from xray_server.stores.sqlite.rows import RUNS, STAGES, Table

MAX_BATCHES_PER_TRANSACTION = 256


@dataclass(frozen=True, slots=True)
class Job:
    """One batch to write and whom to tell.

    Args:
        project: The project.
        batch: What to write.
        done: Called in the writer's thread with None when the batch is durable, or with what went wrong.
    """

    project: str
    batch: WriteBatch
    done: Callable[[StoreError | None], None]


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
        self._metrics: dict[tuple[str, str], int] = {}
        self._dirty: set[tuple[str, Bucket]] = set()
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
            self._dirty.clear()
            self._connection.execute("BEGIN IMMEDIATE")
            for job in jobs:
                if isinstance(job, Change):
                    job.make(self._connection)
                else:
                    self._write(job.project, job.batch)
            mark_dirty(self._connection, self._dirty)
            self._connection.execute("COMMIT")
            return None
        except Exception as error:
            # Whatever it was, the sender has to hear that the batch is not stored; the thread goes on.
            self._metrics.clear()
            try:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            except sqlite3.Error as failed:
                return StoreError(f"SQLite could not undo a failed write: {failed}.")
            if isinstance(error, StoreError):
                return error
            return StoreError(f"SQLite could not write: {type(error).__name__}: {error}.")

    # --- one batch, inside a transaction ------------------------------------------------------------------------

    def _write(self, project: str, batch: WriteBatch) -> None:
        for run_id, partial in batch.runs.items():
            self._merge(RUNS, project, run_id, partial)
        for stage_id, partial in batch.stages.items():
            self._merge_stage(project, stage_id, partial)
        for page in batch.pages:
            self._merge_page(project, page)
        for stage_type, declared in batch.declarations.items():
            self._merge_declarations(project, stage_type, declared)

    def _merge_stage(self, project: str, stage_id: str, partial: Mapping[str, Any]) -> None:
        row, before, after = self._merge(STAGES, project, stage_id, partial)
        self._dirty.update((project, bucket) for bucket in changed_buckets(before, after))
        if before.get("metrics") == after.get("metrics"):
            return
        if before.get("metrics"):
            self._connection.execute("DELETE FROM stage_metrics WHERE stage = ?", (row,))
        found = {
            (row, self._metric(project, name), value, int(kind))
            for name, value, kind in rows.metric_rows(after.get("metrics"))
        }
        self._connection.executemany(
            "INSERT INTO stage_metrics (stage, metric, value, kind) VALUES (?, ?, ?, ?)", found
        )

    def _merge(
        self, table: Table, project: str, document_id: str, partial: Mapping[str, Any]
    ) -> tuple[int, Document, Document]:
        """Merge a partial document into its row; the row's number, and the document before and after."""
        found = self._connection.execute(
            f"SELECT row, {table.columns()} FROM {table.name} WHERE project = ? AND id = ?", (project, document_id)
        ).fetchone()
        before = table.decode(found[1:]) if found else {}
        after = merge_into(dict(before), {**partial, "id": document_id})
        if found and after == before:
            return found[0], before, after
        values = table.encode(after)
        if found:
            marks = ", ".join(f'"{name}" = ?' for name in table.kinds)
            self._connection.execute(f"UPDATE {table.name} SET {marks} WHERE row = ?", (*values, found[0]))
            return found[0], before, after
        marks = ", ".join("?" * (len(values) + 1))
        cursor = self._connection.execute(
            f"INSERT INTO {table.name} (project, {table.columns()}) VALUES ({marks})", (project, *values)
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid, before, after

    def _metric(self, project: str, name: str) -> int:
        """The number of a metric's name, made where it has none."""
        known = self._metrics.get((project, name))
        if known is not None:
            return known
        self._connection.execute(
            "INSERT INTO metric_names (project, name) VALUES (?, ?) ON CONFLICT DO NOTHING", (project, name)
        )
        number: int = self._connection.execute(
            "SELECT metric FROM metric_names WHERE project = ? AND name = ?", (project, name)
        ).fetchone()[0]
        # The names inside tables are the users' own: without a bound their number grows for ever.
        if len(self._metrics) >= 100_000:
            self._metrics.clear()
        self._metrics[project, name] = number
        return number

    def _merge_page(self, project: str, page: CandidatePage) -> None:
        place = (project, page.stage_id, page.page)
        found = self._connection.execute(
            f"SELECT {rows.PAGE_COLUMNS} FROM pages WHERE project = ? AND stage_id = ? AND page = ?", place
        ).fetchone()
        if found:
            there = rows.decode_page(found)
            page = merge_pages(there, page)
            if page is there:
                return
        values = rows.encode_page(page)
        marks = ", ".join("?" * (len(values) + 1))
        self._connection.execute(
            f"INSERT INTO pages (project, {rows.PAGE_COLUMNS}) VALUES ({marks})"
            " ON CONFLICT (project, stage_id, page) DO UPDATE SET"
            " seqs = excluded.seqs, ids = excluded.ids, reason_labels = excluded.reason_labels, block = excluded.block",
            (project, *values),
        )

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
