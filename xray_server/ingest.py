"""From a batch of events to what the store keeps: validate, measure, cut into pages, write.

Every event stands alone: a bad one is reported and the others are stored. What is derived from several events, which
may come in any order and in different batches, is brought up to date after each write from what is then in the store:
the metrics of a stage whose candidates came apart from it, and the copy of the run's fields that each stage has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from xray.plugins import Plugins
from xray.schema import SCHEMA_VERSION
from xray_server.documents import Document, merge_into
from xray_server.measure import can_wait, lacks_metrics, remeasure
from xray_server.prepare import Batch, IngestResult, Prepared, prepare
from xray_server.query.ast import Field, In, Scan, Test
from xray_server.run_fields import RunFields
from xray_server.stores.base import Store, WriteBatch

IN_THREAD_FROM_EVENTS = 8
IN_THREAD_FROM_CANDIDATES = 500
"""Smaller batches take less time than the way to a thread and back."""

STAGES_PER_SCAN = 100


class Ingest:
    """Takes events into a store.

    Args:
        store: The store, open.
        plugins: The stage types that the service has.
    """

    def __init__(self, store: Store, plugins: Plugins) -> None:
        self._store = store
        self._plugins = plugins
        self._run_fields = RunFields(store)
        self.on_stored: Callable[[str, Prepared], None] | None = None
        """Told of each batch that is durable, with its project; it must not wait or raise."""

    async def accept(
        self, project: str, events: Sequence[Any], *, schema_version: int = SCHEMA_VERSION, analyze: bool = False
    ) -> IngestResult:
        """Store the good events of a batch; they are durable when this returns.

        Args:
            project: The project.
            events: What a JSON or msgpack decoder gave.
            schema_version: The version of the wire schema that the sender wrote.
            analyze: Whether the result is to name the runs that end in the batch.

        Returns:
            How many events were stored, and what is wrong with the others.

        Raises:
            StoreError: Some or all of the events are not stored; sending all of them again is safe.
        """
        return await self.take(project, await self.prepare(Batch(list(events), schema_version, analyze)))

    async def prepare(self, batch: Batch) -> Prepared:
        """Validate, measure and cut into pages what a batch holds, without holding up others; nothing is written."""
        events = batch.events
        if len(events) >= IN_THREAD_FROM_EVENTS or _candidate_count(events) >= IN_THREAD_FROM_CANDIDATES:
            return await asyncio.to_thread(prepare, events, batch.schema_version, self._plugins, analyze=batch.analyze)
        return prepare(events, batch.schema_version, self._plugins, analyze=batch.analyze)

    async def take(self, project: str, prepared: Prepared) -> IngestResult:
        """Store a batch that was prepared already, as :meth:`accept` does."""
        written = await self._store.write(project, prepared.batch)
        if self.on_stored is not None:
            self.on_stored(project, prepared)
        new_runs = written.new_runs if written is not None else frozenset()
        # After the write: of two batches that come at once, at least the later one sees what both brought.
        later = WriteBatch(stages=await self._run_fields.missing_copies(project, prepared.sayings, new_runs))
        for stage_id, partial in (await self._remeasured(project, prepared.to_measure)).items():
            merge_into(later.stages.setdefault(stage_id, {}), partial)
        await self._store.write(project, later)
        self._run_fields.remember(project, prepared.sayings)
        return prepared.result

    async def _remeasured(self, project: str, stage_ids: set[str]) -> dict[str, Document]:
        """What the stages' documents should say, by what the store has of them now."""
        found: dict[str, Document] = {}
        ids = sorted(stage_ids)
        for start in range(0, len(ids), STAGES_PER_SCAN):
            wanted = tuple(ids[start : start + STAGES_PER_SCAN])
            scan = Scan(of="stages", stage=Test(Field(("id",)), In(wanted)), limit=len(wanted))
            rows = await self._store.scan(project, scan)
            counts = await self._store.candidate_counts(project, [row.document["id"] for row in rows])
            for row in rows:
                stage = row.document
                count = counts.get(stage["id"])
                if count is not None and can_wait(stage, count):
                    continue
                if count is None or lacks_metrics(stage, count, self._plugins):
                    pages = [page async for page in self._store.pages(project, stage["id"])]
                    partial = await asyncio.to_thread(remeasure, stage, pages, self._plugins)
                else:
                    partial = remeasure(stage, [], self._plugins, count)
                if partial:
                    found[stage["id"]] = {"id": stage["id"], "run_id": stage["run_id"]} | partial
        return found


def _candidate_count(events: Iterable[Any]) -> int:
    """About how many candidates there are in events that nobody has looked at yet."""
    count = 0
    for event in events:
        if isinstance(event, dict):
            rows, columns = event.get("candidates"), event.get("columns")
            count += len(rows) if isinstance(rows, list) else 0
            if isinstance(columns, dict):
                count += max((len(values) for values in columns.values() if isinstance(values, list)), default=0)
    return count
