"""The embedded store: everything in one SQLite file.

One thread writes, a few threads read, each with a connection of its own; in WAL mode readers never wait for the
writer. ``synchronous=FULL`` makes a batch durable before ``write`` returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from xray.exceptions import StoreClosed, StoreError
from xray.ids import now_ms
from xray_server.documents import Document
from xray_server.pages import PAGE_SIZE, CandidatePage
from xray_server.query.ast import Field, Reference, Scan
from xray_server.sightings.hunt import Hunt
from xray_server.stores.base import (
    Bucket,
    Finding,
    Grouped,
    HalfDays,
    NamedDocument,
    PipelineSummary,
    Removed,
    Rollup,
    Row,
    ScanPlan,
    Sighting,
    Store,
    Usage,
    WriteBatch,
    Written,
)
from xray_server.stores.encoding import from_json
from xray_server.stores.sqlite import checks, named, rows, sightings, upkeep, zones
from xray_server.stores.sqlite import rollups as rollup_tables
from xray_server.stores.sqlite.dictionaries import Decompressor, read_dictionary
from xray_server.stores.sqlite.paths import leads_to_few
from xray_server.stores.sqlite.reader import Reader
from xray_server.stores.sqlite.schema import migrate
from xray_server.stores.sqlite.threads import ReaderThreads
from xray_server.stores.sqlite.values import WORD, id_text, id_value, word_expression
from xray_server.stores.sqlite.writer import Change, Job, Writer

T = TypeVar("T")

READER_THREADS = 4
MAX_WAITING_WRITES = 1024
BUSY_TIMEOUT_S = 30
PAGES_PER_READ = 16
STAGES_PER_READ = 100
PAGE_BYTES = 4096
"""Pages of candidates that are longer than this go on in pages of their own, which wastes less than larger pages do."""

STATEMENTS_KEPT = 512
LOG_BYTES = 4 * 1024 * 1024
"""How long the write-ahead log grows before it goes into the file."""

MAX_IDLE_LOG_BYTES = 16 * 1024 * 1024
"""The write-ahead log is cut back to this length once everything in it has gone into the file."""


class SqliteStore(Store):
    """A store in one file, for one machine.

    Other processes may read and write the same file on the same machine; not over a network file system.

    Args:
        path: The file; it and its folder are made where they are missing.
    """

    kind = "sqlite"

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._writer: Writer | None = None
        self._readers: ReaderThreads | None = None
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._near: tuple[sqlite3.Connection, Reader] | None = None
        """What reads in the event loop's own thread."""

    # --- life ---------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        if self._writer is not None:
            return
        connection, near = await asyncio.to_thread(self._prepare)
        self._slots = asyncio.Semaphore(MAX_WAITING_WRITES)
        self._writer = Writer(connection)
        self._local = threading.local()
        self._readers = ReaderThreads(READER_THREADS)
        self._connections.append(near)
        self._near = near, Reader(near, Decompressor(functools.partial(read_dictionary, near)))

    def _prepare(self) -> tuple[sqlite3.Connection, sqlite3.Connection]:
        """A connection for the writer, and one for reading in the event loop's thread."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = self._connect()
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"The SQLite file {self.path} cannot be opened: {error}.") from error
        try:
            migrate(connection)
            near = self._connect()
            near.execute("PRAGMA query_only = ON")
            near.execute("PRAGMA busy_timeout = 0")  # the loop waits for nobody
            return connection, near
        except sqlite3.Error as error:
            connection.close()
            raise StoreError(f"The SQLite file {self.path} cannot be used: {error}.") from error
        except BaseException:
            connection.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        # isolation_level=None: transactions are begun and ended by the statements that say so, and nothing else.
        connection = sqlite3.connect(
            self.path,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=STATEMENTS_KEPT,
        )
        try:
            if connection.execute("PRAGMA page_count").fetchone()[0] == 0:
                # A file takes these before anything is written, or with VACUUM.
                connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_BYTES // PAGE_BYTES}")
            connection.execute(f"PRAGMA journal_size_limit = {MAX_IDLE_LOG_BYTES}")
            # Some builds overwrite what is deleted with zeros, which makes a removal as dear as a write.
            connection.execute("PRAGMA secure_delete = OFF")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA cache_size = -16384")  # KiB
        except BaseException:
            connection.close()
            raise
        return connection

    async def close(self) -> None:
        writer, readers = self._writer, self._readers
        self._writer = self._readers = self._near = None
        if readers is not None:
            readers.end()
        if writer is not None:
            await asyncio.to_thread(writer.close)
        if readers is not None:
            await asyncio.to_thread(readers.join)
        while self._connections:
            self._connections.pop().close()

    def describe(self) -> dict[str, Any]:
        size_bytes = sum(
            path.stat().st_size for path in (self.path, self.path.with_name(self.path.name + "-wal")) if path.exists()
        )
        return {"kind": self.kind, "location": str(self.path), "size_bytes": size_bytes}

    # --- writing ------------------------------------------------------------------------------------------------

    async def write(self, project: str, batch: WriteBatch) -> Written:
        self._require_open()
        if batch.is_empty():
            return Written()
        new_runs: set[str] = set()
        await self._submit(lambda done: Job(project, batch, done, new_runs))
        return Written(frozenset(new_runs))

    async def _change(self, make: Callable[[sqlite3.Connection], T]) -> T:
        """Make a change in a transaction of the writer's thread; it is durable when this returns."""
        results: list[T] = []
        await self._submit(lambda done: Change(lambda connection: results.append(make(connection)), done))
        return results[-1]

    async def _submit(self, job: Callable[[Callable[[StoreError | None], None]], Job | Change]) -> None:
        self._require_open()
        async with self._slots:
            writer = self._require_open()
            loop = asyncio.get_running_loop()
            written: asyncio.Future[None] = loop.create_future()

            def settle(error: StoreError | None) -> None:
                if written.done():  # the caller was cancelled; the batch is written all the same
                    return
                if error is None:
                    written.set_result(None)
                else:
                    written.set_exception(error)

            def done(error: StoreError | None) -> None:
                with contextlib.suppress(RuntimeError):  # the loop was closed under a waiting write
                    loop.call_soon_threadsafe(settle, error)

            writer.submit(job(done))
            await written

    def _require_open(self) -> Writer:
        if self._writer is None:
            raise StoreClosed("The store is not open.")
        return self._writer

    # --- reading ------------------------------------------------------------------------------------------------

    async def _read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        if self._readers is None:
            raise StoreClosed("The store is not open.")
        return await self._readers.run(functools.partial(self._in_snapshot, function))

    def _in_snapshot(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function in a reader's thread; all of its statements see the same state of the file."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        try:
            if connection is None:
                connection = self._local.connection = self._connect()
                decompressor = Decompressor(functools.partial(read_dictionary, connection))
                self._local.reader = Reader(connection, decompressor)
                self._local.decompressor = decompressor
                self._connections.append(connection)
                connection.execute("PRAGMA query_only = ON")
            connection.execute("BEGIN")
            try:
                return function(connection)
            finally:
                connection.execute("ROLLBACK")
        except (sqlite3.Error, ValueError, OverflowError) as error:  # a value that SQLite cannot take is a ValueError
            raise StoreError(f"SQLite could not read: {error}.") from error

    async def _rows(self, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        return await self._read(lambda connection: connection.execute(query, values).fetchall())

    async def scan(self, project: str, scan: Scan) -> Sequence[Row]:
        # Going to another thread and back takes longer than reading what a few ids lead to.
        found = self._scan_at_once(project, scan) if leads_to_few(scan) else None
        if found is not None:
            return found
        return await self._read(lambda _: self._reader().scan(project, scan))

    def _scan_at_once(self, project: str, scan: Scan) -> Sequence[Row] | None:
        """What a scan finds, read in the event loop's own thread; None where that would take long, or fails."""
        if self._near is None:
            return None
        connection, reader = self._near
        try:
            connection.execute("BEGIN")
            try:
                return reader.scan_at_once(project, scan)
            finally:
                connection.execute("ROLLBACK")
        except (sqlite3.Error, ValueError, OverflowError):  # it is tried again, and said, by a reader's thread
            return None

    async def explain(self, project: str, scan: Scan) -> ScanPlan:
        return await self._read(lambda _: self._reader().explain(project, scan))

    async def grouped(
        self, project: str, scan: Scan, by: Sequence[Field], span_ms: int | None, numbers: Sequence[Reference]
    ) -> Grouped | None:
        return await self._read(lambda _: self._reader().grouped(project, scan, by, span_ms, numbers))

    def _reader(self) -> Reader:
        """The reader of this thread."""
        reader: Reader = self._local.reader
        return reader

    async def pages(self, project: str, stage_id: str, *, from_seq: int = 0) -> AsyncIterator[CandidatePage]:
        first = min(max(0, from_seq) // PAGE_SIZE, (1 << rows.PAGE_BITS) - 1)
        while True:
            found = await self._read(functools.partial(self._some_pages, project, stage_id, first))
            for page in found:
                yield page
            if len(found) < PAGES_PER_READ:
                return
            first = found[-1].page + 1

    def _some_pages(
        self, project: str, stage_id: str, first: int, connection: sqlite3.Connection
    ) -> list[CandidatePage]:
        found = connection.execute(
            f"SELECT row, run_id FROM stages WHERE project = {WORD} AND id = ?", (project, id_value(stage_id))
        ).fetchone()
        if found is None:
            return []
        query = f"SELECT {rows.PAGE_READ} FROM pages WHERE row >= ? AND row < ? ORDER BY row LIMIT ?"
        bounds = rows.page_row(found[0], first), rows.page_row(found[0] + 1, 0)
        run_id = None if found[1] is None else id_text(found[1])
        pages = {
            row[0]: rows.decode_page(stage_id, run_id, row, self._local.decompressor)
            for row in connection.execute(query, (*bounds, PAGES_PER_READ)).fetchall()
        }
        for row, of_page in zones.read(connection, pages).items():
            pages[row].zones = of_page
        return list(pages.values())

    async def pages_of_many(self, project: str, stage_ids: Sequence[str]) -> Mapping[str, Sequence[CandidatePage]]:
        found: dict[str, list[CandidatePage]] = {}
        for start in range(0, len(stage_ids), STAGES_PER_READ):
            some = stage_ids[start : start + STAGES_PER_READ]
            found |= await self._read(lambda _, some=some: self._reader().pages_of_many(project, some))  # type: ignore[misc]
        return found

    async def candidate_counts(self, project: str, stage_ids: Sequence[str]) -> Mapping[str, int]:
        found: dict[str, int] = {}
        for start in range(0, len(stage_ids), STAGES_PER_READ):
            some = stage_ids[start : start + STAGES_PER_READ]
            found |= await self._read(lambda _, some=some: self._reader().candidate_counts(project, some))  # type: ignore[misc]
        return found

    async def pipelines(self, project: str) -> Sequence[PipelineSummary]:
        query = f"""
            SELECT {word_expression("runs.label")} AS name, count(*), sum(status IS {WORD}),
                   min(started_at), max(started_at),
                   json_group_array(DISTINCT version), json_group_array(DISTINCT environment)
            FROM runs WHERE project = {WORD} GROUP BY label ORDER BY max(started_at) DESC, name
        """

        def read(connection: sqlite3.Connection) -> list[PipelineSummary]:
            found = connection.execute(query, ("failure", project)).fetchall()
            return [
                PipelineSummary(
                    label, runs, failures, first, last, _words(connection, versions), _words(connection, environments)
                )
                for label, runs, failures, first, last, versions, environments in found
            ]

        return await self._read(read)

    async def declarations(self, project: str) -> Mapping[str, list[dict[str, Any]]]:
        query = "SELECT stage_type, metrics FROM declarations WHERE project = ? ORDER BY stage_type"
        found = await self._rows(query, (project,))
        return {stage_type: from_json(metrics) for stage_type, metrics in found}

    # --- sightings ----------------------------------------------------------------------------------------------

    async def sightings(
        self,
        project: str,
        candidate_id: str,
        *,
        label: str | None = None,
        since: int | None = None,
        until: int | None = None,
        after: tuple[int | None, str, int] | None = None,
        limit: int,
    ) -> Sequence[Sighting]:
        hunt = Hunt(label=label, since=since, until=until, after=after, limit=limit)
        return await self._read(
            lambda connection: sightings.find(connection, self._local.decompressor, project, candidate_id, hunt, label)
        )

    async def index_candidates(self, project: str) -> bool:
        step = await self._read(lambda connection: sightings.plan(connection, self._local.decompressor, project))
        if step is None:
            return False
        built = await asyncio.to_thread(step.build)
        await self._change(lambda connection: sightings.install(connection, step, built))
        return True

    # --- rollups ------------------------------------------------------------------------------------------------

    async def dirty_buckets(
        self, project: str, *, limit: int, label: str | None = None, since: int | None = None, until: int | None = None
    ) -> Sequence[tuple[Bucket, int]]:
        return await self._read(lambda connection: rollup_tables.dirty(connection, project, limit, label, since, until))

    async def keep_rollups(self, project: str, rollups: Sequence[tuple[Rollup, int]]) -> None:
        await self._change(lambda connection: rollup_tables.keep(connection, project, rollups))

    async def rollups(
        self, project: str, *, label: str | None = None, name: str | None = None, since: int, until: int
    ) -> Sequence[Rollup]:
        return await self._read(lambda connection: rollup_tables.kept(connection, project, label, name, since, until))

    async def half_days(
        self, project: str, *, label: str | None = None, name: str | None = None, since: int, until: int
    ) -> HalfDays:
        return await self._read(
            lambda connection: rollup_tables.half_days(connection, project, label, name, since, until)
        )

    async def dirty_half_days(self, project: str, *, limit: int, until: int) -> Sequence[tuple[Bucket, int]]:
        return await self._read(
            lambda connection: rollup_tables.dirty(
                connection, project, limit, None, None, until, rollup_tables.HALF_DAYS[1]
            )
        )

    async def keep_half_days(self, project: str, rollups: Sequence[tuple[Rollup, int]]) -> None:
        await self._change(lambda connection: rollup_tables.keep_half_days(connection, project, rollups))

    # --- named documents ----------------------------------------------------------------------------------------

    async def keep_named(self, project: str, kind: str, name: str, document: Document) -> NamedDocument:
        now = now_ms()
        return await self._change(lambda connection: named.keep(connection, project, kind, name, document, now))

    async def named(self, project: str, kind: str, name: str) -> NamedDocument | None:
        return await self._read(lambda connection: named.one(connection, project, kind, name))

    async def all_named(self, project: str, kind: str) -> Sequence[NamedDocument]:
        return await self._read(lambda connection: named.every(connection, project, kind))

    async def remove_named(self, project: str, kind: str, name: str) -> bool:
        return await self._change(lambda connection: named.remove(connection, project, kind, name))

    # --- keeping house ------------------------------------------------------------------------------------------

    async def projects(self) -> Sequence[str]:
        return await self._read(upkeep.projects)

    async def usage(self) -> Usage:
        return await self._read(lambda connection: upkeep.usage(connection, self.path))

    async def remove_candidates(
        self, project: str, *, before: int | None, limit: int, dry_run: bool = False
    ) -> Removed:
        if dry_run:
            return await self._read(lambda connection: upkeep.removable_pages(connection, project, before))
        now = now_ms()
        return await self._change(lambda connection: upkeep.remove_pages(connection, project, before, limit, now))

    async def remove_runs(self, project: str, *, before: int | None, limit: int, dry_run: bool = False) -> Removed:
        if dry_run:
            return await self._read(lambda connection: upkeep.removable_runs(connection, project, before))
        total, more = Removed(), True
        while more:
            room = limit - total.runs
            removed, more = await self._change(
                lambda connection, room=room: upkeep.remove_runs(connection, project, before, room)  # type: ignore[misc]
            )
            total += removed
        return total

    async def reclaim(self) -> None:
        while await self._change(upkeep.free_some_pages):
            pass
        await self._read(upkeep.shorten_log)

    async def check(self) -> Sequence[Finding]:
        return await self._read(lambda connection: checks.check(connection, self._reader()))


def _words(connection: sqlite3.Connection, found: str) -> tuple[str, ...]:
    numbers = "SELECT value FROM json_each(?)"
    query = f"SELECT text FROM words WHERE word IN ({numbers})"
    return tuple(sorted(word for (word,) in connection.execute(query, (found,))))
