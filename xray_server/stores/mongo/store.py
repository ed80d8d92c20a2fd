"""The MongoDB store: connecting, and the contract's methods."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import pymongo
from beanie import init_beanie
from bson.max_key import MaxKey
from bson.min_key import MinKey
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError, ServerSelectionTimeoutError, WaitQueueTimeoutError

from xray.exceptions import StoreClosed, StoreError
from xray.ids import now_ms
from xray_server.documents import Document
from xray_server.pages import PAGE_SIZE, CandidatePage
from xray_server.query.ast import Field, Reference, Scan
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
)
from xray_server.stores.encoding import unpack
from xray_server.stores.mongo import buckets, checks, grouping, indexing, named, pipelines, reads, sightings, upkeep
from xray_server.stores.mongo.codec import Codec
from xray_server.stores.mongo.connection import LONG_TIMEOUT_S, OPEN_TIMEOUT_S, Address
from xray_server.stores.mongo.documents import DECLARED
from xray_server.stores.mongo.footprint import Footprint
from xray_server.stores.mongo.forms import CODEC, Raw
from xray_server.stores.mongo.scans import scan_rows
from xray_server.stores.mongo.spans import Spans
from xray_server.stores.mongo.writes import write_batch

FORM_VERSION, READ_FROM = 3, 2
"""The form of the documents that are written, and the earliest that is read; any other is refused."""


class MongoStore(Store):
    """A store in one database of a MongoDB server, replica set or sharded cluster.

    Any number of processes on any number of machines may read and write the same database.

    Args:
        url: ``mongodb://[user:password@]host[:port][,…]/[database][?options]``, or ``mongodb+srv://…``.

    Raises:
        ConfigurationError: It is no such URL.
    """

    kind = "mongodb"

    def __init__(self, url: str) -> None:
        self._address = Address(url)
        self._client: AsyncMongoClient[Raw] | None = None
        self._codec = Codec()
        self._spans = Spans()
        self._footprint = Footprint()
        self._building: asyncio.Task[None] | None = None
        self._next_look_s: dict[str, float] = {}

    # --- life ---------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        if self._client is not None:
            return
        client = self._address.client()
        try:
            with self._address.errors("be opened"):
                with pymongo.timeout(OPEN_TIMEOUT_S):
                    await client.admin.command("ping")
                database = client.get_database(self._address.database, codec_options=CODEC)
                await self._check_form(database)
                # Beanie binds the declared classes to the database that was opened last; this store goes to the
                # collections itself, so that several may be open.
                await init_beanie(database=database, document_models=list(DECLARED), skip_indexes=True)
                self._building = await checks.build_indexes(database)
                await buckets.mark_all_half_days(database)
        except BaseException:
            await client.close()
            raise
        self._replacing = asyncio.Lock()
        self._codec = Codec()
        self._spans = Spans()
        self._client = client

    async def _check_form(self, database: AsyncDatabase[Raw]) -> None:
        form = database["form"]
        await form.update_one({"_id": "form"}, {"$setOnInsert": {"version": FORM_VERSION}}, upsert=True)
        found = await form.find_one({"_id": "form"})
        version = FORM_VERSION if found is None else found["version"]
        if READ_FROM <= version < FORM_VERSION:
            # What is there is read as it is; that there is more from now on, earlier versions have to know.
            await form.update_one({"_id": "form", "version": version}, {"$set": {"version": FORM_VERSION}})
            return
        if version > FORM_VERSION:
            raise StoreError(
                f"The database has form {version}; this version of X-Ray knows form {FORM_VERSION}.",
                code="newer_store",
                hint="Use the version of X-Ray that wrote it, or a newer one.",
            )
        if version < FORM_VERSION:
            raise StoreError(
                f"The database has form {version}; this version of X-Ray reads and writes form {FORM_VERSION}.",
                code="older_store",
                hint="Write it to a file with 'xray export' of the version that made it, and into a new database with"
                " 'xray import'; or name another database.",
            )

    async def close(self) -> None:
        client, building = self._client, self._building
        self._client = self._building = None
        if building is not None:
            # A server that has begun to build an index goes on with it.
            building.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await building
        if client is not None:
            await client.close()

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "location": self._address.location}

    @asynccontextmanager
    async def _asked_to(self, doing: Literal["read", "write"]) -> AsyncIterator[AsyncDatabase[Raw]]:
        """The database, for one thing to be done with it, whose errors become ours."""
        client = self._client
        if client is None:
            raise StoreClosed("The store is not open.")
        with self._address.errors(doing):
            try:
                yield client.get_database(self._address.database, codec_options=CODEC)
            except (ServerSelectionTimeoutError, WaitQueueTimeoutError):
                await self._replace(client)
                raise

    async def _replace(self, client: AsyncMongoClient[Raw]) -> None:
        """Take a new client where that reaches the server and the old one does not.

        After a server has crashed and come back several times, a client of PyMongo 4.20 may go on taking it for gone,
        or its pool for full.
        """
        async with self._replacing:
            if self._client is not client:
                return
            fresh = self._address.client()
            try:
                with pymongo.timeout(OPEN_TIMEOUT_S):
                    await fresh.admin.command("ping")
            except PyMongoError:
                await fresh.close()
                return
            self._client = fresh
            await client.close()

    # --- writing ------------------------------------------------------------------------------------------------

    async def write(self, project: str, batch: WriteBatch) -> None:
        async with self._asked_to("write") as database:
            if not batch.is_empty():
                await write_batch(self._codec, database, project, batch)

    # --- reading ------------------------------------------------------------------------------------------------

    async def scan(self, project: str, scan: Scan) -> Sequence[Row]:
        async with self._asked_to("read") as database:
            return await scan_rows(self._codec, database, project, scan, self._spans)

    async def explain(self, project: str, scan: Scan) -> ScanPlan | None:
        async with self._asked_to("read") as database:
            return await checks.explain(self._codec, database, project, scan)

    async def grouped(
        self, project: str, scan: Scan, by: Sequence[Field], span_ms: int | None, numbers: Sequence[Reference]
    ) -> Grouped | None:
        async with self._asked_to("read") as database:
            return await grouping.grouped(self._codec, database, project, scan, by, span_ms, numbers, self._spans)

    def pages(self, project: str, stage_id: str, *, from_seq: int = 0) -> AsyncIterator[CandidatePage]:
        first = max(0, from_seq) // PAGE_SIZE
        return reads.each(lambda: self._asked_to("read"), self._codec, project, stage_id, first)

    async def pages_of_many(self, project: str, stage_ids: Sequence[str]) -> Mapping[str, Sequence[CandidatePage]]:
        async with self._asked_to("read") as database:
            return await reads.of_many(self._codec, database, project, stage_ids)

    async def candidate_counts(self, project: str, stage_ids: Sequence[str]) -> Mapping[str, int]:
        async with self._asked_to("read") as database:
            return await reads.counts(self._codec, database, project, stage_ids)

    async def pipelines(self, project: str) -> Sequence[PipelineSummary]:
        async with self._asked_to("read") as database:
            return await pipelines.summaries(self._codec.words, database, project)

    async def declarations(self, project: str) -> Mapping[str, list[dict[str, Any]]]:
        async with self._asked_to("read") as database:
            of_project = {"$gte": {"p": project, "t": MinKey()}, "$lte": {"p": project, "t": MaxKey()}}
            cursor = database["declarations"].find({"_id": of_project}, sort=[("_id", 1)])
            return {raw["_id"]["t"]: unpack(raw["metrics"]) async for raw in cursor}

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
        async with self._asked_to("read") as database:
            return await sightings.find(
                self._codec,
                database,
                project,
                candidate_id,
                label=label,
                since=since,
                until=until,
                after=after,
                limit=limit,
            )

    async def index_candidates(self, project: str) -> bool:
        look = self._next_look_s.get(project, 0.0) <= time.monotonic()
        if look:
            self._next_look_s[project] = time.monotonic() + indexing.LOOK_EVERY_S
        async with self._asked_to("write") as database:
            return await indexing.index(self, database, project, look_for_gone=look)

    # --- rollups ------------------------------------------------------------------------------------------------

    async def dirty_buckets(
        self, project: str, *, limit: int, label: str | None = None, since: int | None = None, until: int | None = None
    ) -> Sequence[tuple[Bucket, int]]:
        async with self._asked_to("read") as database:
            return await buckets.dirty(database[buckets.COLLECTION], project, limit, label, since, until)

    async def keep_rollups(self, project: str, rollups: Sequence[tuple[Rollup, int]]) -> None:
        async with self._asked_to("write") as database:
            await buckets.keep(database, project, rollups)

    async def rollups(
        self, project: str, *, label: str | None = None, name: str | None = None, since: int, until: int
    ) -> Sequence[Rollup]:
        async with self._asked_to("read") as database:
            return await buckets.kept(database[buckets.COLLECTION], project, label, name, since, until)

    async def half_days(
        self, project: str, *, label: str | None = None, name: str | None = None, since: int, until: int
    ) -> HalfDays:
        async with self._asked_to("read") as database:
            return await buckets.half_days(database, project, label, name, since, until)

    async def dirty_half_days(self, project: str, *, limit: int, until: int) -> Sequence[tuple[Bucket, int]]:
        async with self._asked_to("read") as database:
            return await buckets.dirty(database[buckets.HALF_DAYS], project, limit, None, None, until)

    async def keep_half_days(self, project: str, rollups: Sequence[tuple[Rollup, int]]) -> None:
        async with self._asked_to("write") as database:
            await buckets.keep_half_days(database, project, rollups)

    # --- named documents ----------------------------------------------------------------------------------------

    async def keep_named(self, project: str, kind: str, name: str, document: Document) -> NamedDocument:
        async with self._asked_to("write") as database:
            return await named.keep(database[named.COLLECTION], project, kind, name, document, now_ms())

    async def named(self, project: str, kind: str, name: str) -> NamedDocument | None:
        async with self._asked_to("read") as database:
            return await named.one(database[named.COLLECTION], project, kind, name)

    async def all_named(self, project: str, kind: str) -> Sequence[NamedDocument]:
        async with self._asked_to("read") as database:
            return await named.every(database[named.COLLECTION], project, kind)

    async def remove_named(self, project: str, kind: str, name: str) -> bool:
        async with self._asked_to("write") as database:
            return await named.remove(database[named.COLLECTION], project, kind, name)

    # --- keeping house ------------------------------------------------------------------------------------------

    async def projects(self) -> Sequence[str]:
        async with self._asked_to("read") as database:
            return await upkeep.projects(database, self._codec.words)

    async def usage(self) -> Usage:
        async with self._asked_to("read") as database:
            return await upkeep.usage(database, self._footprint)

    async def remove_candidates(
        self, project: str, *, before: int | None, limit: int, dry_run: bool = False
    ) -> Removed:
        if dry_run:
            async with self._asked_to("read") as database:
                with pymongo.timeout(LONG_TIMEOUT_S):
                    number = await self._codec.words.project(database, project)
                    return await upkeep.removable_candidates(database, self._codec.words, number, before)
        async with self._asked_to("write") as database:
            number = await self._codec.words.project(database, project)
            return await upkeep.remove_candidates(database, self._codec.words, number, before, limit, self._footprint)

    async def remove_runs(self, project: str, *, before: int | None, limit: int, dry_run: bool = False) -> Removed:
        if dry_run:
            async with self._asked_to("read") as database:
                with pymongo.timeout(LONG_TIMEOUT_S):
                    number = await self._codec.words.project(database, project)
                    return await upkeep.removable_runs(database, number, before)
        async with self._asked_to("write") as database:
            number = await self._codec.words.project(database, project)
            return await upkeep.remove_runs(database, project, number, before, limit, self._footprint)

    async def reclaim(self) -> None:
        """Do nothing: MongoDB uses freed space again by itself, and what it takes is counted without it."""
        async with self._asked_to("read"):
            pass

    async def check(self) -> Sequence[Finding]:
        async with self._asked_to("read") as database:
            return await checks.check(self._codec, database)
